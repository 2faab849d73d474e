//! An explanation as people read it: one block per stage of the packet's way, the rules as a tree.

use crate::api::types::{
    ExplainedFlow, ExplainedStep, ExplainedVerdict, Explanation, Fate, Relation, RulePlace, StepKind,
};
use crate::cli::{Output, write_flow};
use std::io::{self, Write};

/// Columns before what is said of a stage.
const LABEL: usize = 9;

/// Writes an explanation.
///
/// # Errors
/// If it cannot be written.
pub fn write_explanation(explained: &Explanation, out: &mut dyn Write) -> io::Result<()> {
    let Explanation { generation: _, packet, owner, flow, ct, steps, tried, omitted, verdict, notes } =
        explained;
    block(out, "packet", &packet.summary)?;
    let way = if packet.egress.is_empty() {
        format!("in on {}", packet.ingress)
    } else {
        format!("in on {}, out on {} if it passes", packet.ingress, packet.egress)
    };
    block(out, "", &way)?;
    for header in &packet.headers {
        block(out, "", header)?;
    }
    if let Some(malformed) = &packet.malformed {
        block(out, "", &format!("malformed, {}: {}", malformed.name, malformed.text))?;
    }
    if let Some(owner) = owner {
        block(out, "owner", &format!("worker {}, bucket {}: {}", owner.worker, owner.bucket, owner.why))?;
    }
    match (flow, ct) {
        (Some(flow), _) => write_known_flow(flow, out)?,
        (None, Some(_)) => block(out, "flow", "none")?,
        (None, None) => {}
    }
    if let Some(ct) = ct {
        let reason = ct.reason.as_ref().map(|reason| format!(" ({})", reason.name)).unwrap_or_default();
        block(out, "state", &format!("{}{reason}: {}", ct.state, ct.why))?;
    }
    if !steps.is_empty() {
        write_steps(steps, out)?;
        let asked = if *tried == 1 { "1 rule asked".to_owned() } else { format!("{tried} rules asked") };
        match omitted {
            0 => block(out, "", &asked)?,
            more => block(
                out,
                "",
                &format!("{asked}; {more} more that did not match and would have decided are left out"),
            )?,
        }
    }
    write_verdict(verdict, &packet.egress, out)?;
    for note in notes {
        block(out, "note", note)?;
    }
    Ok(())
}

/// A line of a stage.
fn block(out: &mut dyn Write, label: &str, text: &str) -> io::Result<()> {
    writeln!(out, "{label:LABEL$}{text}")
}

fn write_known_flow(known: &ExplainedFlow, out: &mut dyn Write) -> io::Result<()> {
    let relation = match known.relation {
        Relation::Original => "the packet goes its original way",
        Relation::Reply => "the packet goes its reply way",
        Relation::About => "the packet is an ICMP error about it",
    };
    write!(out, "{:LABEL$}", "flow")?;
    write_flow(&known.flow, &Output::default(), out)?;
    block(out, "", relation)?;
    for change in &known.changes {
        block(out, "", change)?;
    }
    match &known.remembered {
        Some(remembered) => block(out, "", remembered),
        None => Ok(()),
    }
}

/// The tree of rules.
fn write_steps(steps: &[ExplainedStep], out: &mut dyn Write) -> io::Result<()> {
    let mut head = None;
    for (at, step) in steps.iter().enumerate() {
        let chain = (&step.rule.table, &step.rule.chain, step.depth);
        let indent = LABEL + 2 * step.depth as usize;
        if head != Some(chain) {
            let label = if at == 0 { "rules" } else { "" };
            let (table, name) = (&step.rule.table, &step.rule.chain);
            writeln!(out, "{label:LABEL$}{:width$}{table} {name}", "", width = indent - LABEL)?;
            head = Some(chain);
        }
        write_step(step, indent + 2, out)?;
    }
    Ok(())
}

fn write_step(step: &ExplainedStep, indent: usize, out: &mut dyn Write) -> io::Result<()> {
    let ExplainedStep { kind, depth: _, rule, failed, effect } = step;
    let number = rule.number.map(|number| number.to_string()).unwrap_or_default();
    let (mark, text) = match kind {
        StepKind::Matched => ("yes", rule.text.clone()),
        StepKind::Failed => ("no ", rule.text.clone()),
        StepKind::Policy => ("end", format!("policy: {}", rule.text)),
        StepKind::Return => ("end", "back to the calling chain".to_owned()),
    };
    writeln!(out, "{:indent$}{mark} {number:>4}  {text}", "")?;
    let below = indent + 10;
    if let Some(failed) = failed {
        writeln!(out, "{:below$}{failed}", "")?;
    }
    if let Some(effect) = effect {
        writeln!(out, "{:below$}{effect}", "")?;
    }
    Ok(())
}

fn write_verdict(verdict: &ExplainedVerdict, egress: &str, out: &mut dyn Write) -> io::Result<()> {
    let ExplainedVerdict { verdict, reason, rule, answer } = verdict;
    let mut line = verdict.word().to_uppercase();
    if let Some(reason) = reason {
        line += &format!(", {}: {}", reason.name, reason.text);
    }
    if *verdict == Fate::Accept {
        line += &format!(", leaves on {egress}");
    }
    block(out, "verdict", &line)?;
    if let Some(rule) = rule {
        block(out, "", &format!("by {}", place_of(rule)))?;
        block(out, "", &format!("   {}", rule.text))?;
    }
    if let Some(answer) = answer {
        block(out, "answer", answer)?;
    }
    Ok(())
}

/// `filter FORWARD rule 3, rules.v4 line 7`.
fn place_of(rule: &RulePlace) -> String {
    let RulePlace { table, chain, number, text: _, place } = rule;
    let number = number.map_or_else(|| "policy".to_owned(), |number| format!("rule {number}"));
    let place = place.as_ref().map(|place| format!(", {place}")).unwrap_or_default();
    format!("{table} {chain} {number}{place}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::{ExplainedOwner, ExplainedPacket, ExplainedState, Named};

    fn rule(chain: &str, number: Option<u32>, text: &str) -> RulePlace {
        let place = number.map(|number| format!("/etc/rules.v4:{}", number + 4));
        RulePlace {
            table: "filter".to_owned(),
            chain: chain.to_owned(),
            number,
            text: text.to_owned(),
            place,
        }
    }

    /// What a refused packet looks like, jumps and all.
    #[test]
    fn an_explanation_reads_from_packet_to_verdict() {
        let step = |kind, depth, rule: RulePlace| ExplainedStep { kind, depth, rule, ..Default::default() };
        let failed = ExplainedStep {
            failed: Some("--ctstate RELATED,ESTABLISHED: the packet is NEW".to_owned()),
            ..step(
                StepKind::Failed,
                0,
                rule("FORWARD", Some(1), "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
            )
        };
        let explained = Explanation {
            generation: 1,
            packet: ExplainedPacket {
                ingress: "left".to_owned(),
                egress: "right".to_owned(),
                summary: "IPv4 tcp 10.0.0.1:40000 > 10.0.0.2:23 SYN ttl 64 length 60".to_owned(),
                ..Default::default()
            },
            owner: Some(ExplainedOwner { worker: 0, bucket: 7, why: "the only worker".to_owned() }),
            ct: Some(ExplainedState {
                state: "NEW".to_owned(),
                why: "it belongs to no flow and may start one".to_owned(),
                ..Default::default()
            }),
            steps: vec![
                failed,
                step(StepKind::Matched, 0, rule("FORWARD", Some(2), "-A FORWARD -p tcp -j SVC")),
                step(StepKind::Return, 1, rule("SVC", None, "")),
                step(StepKind::Policy, 0, rule("FORWARD", None, "-P FORWARD DROP")),
            ],
            tried: 4,
            verdict: ExplainedVerdict {
                verdict: Fate::Drop,
                reason: Some(Named { name: "policy_drop".to_owned(), text: "No rule matched.".to_owned() }),
                rule: Some(rule("FORWARD", None, "-P FORWARD DROP")),
                answer: None,
            },
            ..Explanation::default()
        };
        let mut out = Vec::new();
        write_explanation(&explained, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let wanted = "\
packet   IPv4 tcp 10.0.0.1:40000 > 10.0.0.2:23 SYN ttl 64 length 60
         in on left, out on right if it passes
owner    worker 0, bucket 7: the only worker
flow     none
state    NEW: it belongs to no flow and may start one
rules    filter FORWARD
           no     1  -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
                     --ctstate RELATED,ESTABLISHED: the packet is NEW
           yes    2  -A FORWARD -p tcp -j SVC
           filter SVC
             end       back to the calling chain
         filter FORWARD
           end       policy: -P FORWARD DROP
         4 rules asked
verdict  DROP, policy_drop: No rule matched.
         by filter FORWARD policy
            -P FORWARD DROP
";
        assert_eq!(text, wanted);
    }
}
