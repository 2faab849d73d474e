//! `fwctl explain`: what would become of a packet, and why. Asks the daemon, or with `--rules` nobody.

mod args;
mod render;

pub(super) use args::ExplainArgs;
pub use render::write_explanation;

use super::client::Client;
use super::{CliError, labels};
use crate::api::types::{ExplainRequest, Explanation};
use crate::config::{Config, Tracking};
use crate::explain::Offline;
use crate::iptables::diagnostics::{Severity, render_all};
use crate::replay;
use crate::rules_file::{self, Named, Rules};
use crate::sets::{self, Store};
use crate::supervisor;
use dataplane::packet::Family;
use std::io::{self, Read as _, Write};
use std::path::Path;

/// Most that is read from standard input, in bytes.
const STDIN_MAX: u64 = 1 << 20;

/// Longest frame that NICs send where nobody says: any.
const FRAME_LEN_MAX: u32 = u32::MAX;

pub(super) fn run(
    socket: &Path,
    args: &ExplainArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, CliError> {
    let explanation = if args.is_offline() {
        match offline(args, err)? {
            Ok(explanation) => explanation,
            Err(code) => return Ok(code),
        }
    } else {
        let client = Client::new(socket)?;
        let request = request(args)?;
        let body = serde_json::to_vec(&request).map_err(io::Error::from)?;
        client.parse(&client.post_bytes("/v1/explain", body)?)?
    };
    if args.json {
        serde_json::to_writer(&mut *out, &explanation).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        write_explanation(&explanation, out)?;
    }
    Ok(0)
}

/// The request that the arguments make.
fn request(args: &ExplainArgs) -> Result<ExplainRequest, CliError> {
    let ingress = args.ingress.clone().unwrap_or_default();
    if let Some(hex) = &args.hex {
        let text = if hex == "-" { standard_input()? } else { hex.clone() };
        return Ok(ExplainRequest { ingress, frame: Some(text), ..ExplainRequest::default() });
    }
    if let Some(file) = &args.pcap {
        let (file, number) = args.capture(file);
        let found = replay::nth(&file, number).map_err(|error| CliError::Wrong(error.to_string()))?;
        let captured = found.map_err(|count| {
            CliError::Wrong(format!(
                "{}: there is no packet {number}; the capture has {count}",
                file.display()
            ))
        })?;
        let digits: Vec<String> = captured.frame.iter().map(|byte| format!("{byte:02x}")).collect();
        let frame = Some(digits.concat());
        return Ok(ExplainRequest { ingress, frame, is_cut: captured.cut, packet: None });
    }
    let packet = Some(args.spec().map_err(CliError::Usage)?);
    Ok(ExplainRequest { ingress, packet, ..ExplainRequest::default() })
}

fn standard_input() -> Result<String, CliError> {
    let mut text = String::new();
    io::stdin().take(STDIN_MAX + 1).read_to_string(&mut text).map_err(|error| {
        CliError::Wrong(format!("standard input is no text of hexadecimal digits: {error}"))
    })?;
    if text.len() as u64 > STDIN_MAX {
        return Err(CliError::Wrong(format!(
            "standard input has more than {STDIN_MAX} bytes: one frame at a time"
        )));
    }
    Ok(text)
}

/// Reads rules; says what keeps them from running, and nothing of what is only odd about them.
fn read_rules(
    path: &Path,
    family: Family,
    named: Named<'_>,
    err: &mut dyn Write,
) -> Result<Result<Rules, u8>, CliError> {
    let name = path.display().to_string();
    let text = rules_file::read(path)
        .map_err(|error| CliError::Wrong(format!("cannot read rules from {name}: {error}")))?;
    let mut loaded = rules_file::understand_with(&text, &name, family, named);
    loaded.diagnostics.retain(|found| found.severity >= Severity::Unsupported);
    err.write_all(render_all(&loaded.diagnostics, &text, &name, false).as_bytes())?;
    let code = if loaded.worst() == Some(Severity::Error) { 1 } else { 3 };
    Ok(Rules::from_loaded(loaded).ok_or(code))
}

/// Explains by rules from files. The inner error is the exit code: the rules are wrong, and that has been said.
fn offline(args: &ExplainArgs, err: &mut dyn Write) -> Result<Result<Explanation, u8>, CliError> {
    let config = Config::from_settings(&args.set).map_err(|errors| CliError::Usage(errors.to_string()))?;
    let names = vec![args.left_if.clone(), args.right_if.clone()];
    let store = Store::new(&names);
    if let Some(path) = args.sets.as_ref().or(config.rules.sets.as_ref())
        && !sets::file::load(&store, path, err)?
    {
        return Ok(Err(1));
    }
    let (labels, slots) = (labels(&config)?, store.slots());
    let mut rules = Vec::new();
    for (path, family) in [(&args.rules, Family::V4), (&args.rules6, Family::V6)] {
        let Some(path) = path else { continue };
        let named = Named { policies: &config.rules.timeout_policies, sets: &slots, labels: &labels };
        match read_rules(path, family, named, err)? {
            Ok(read) => rules.push(read),
            Err(code) => return Ok(Err(code)),
        }
    }
    let always = config.flows.tracking == Tracking::Always;
    let offline = Offline::new(&rules, supervisor::settings(&config), names, FRAME_LEN_MAX, always)
        .map_err(|error| CliError::Wrong(error.to_string()))?;
    let mut request = request(args)?;
    if request.ingress.is_empty() {
        request.ingress.clone_from(&args.left_if);
    }
    let answer = offline.answer(&request).map_err(|error| CliError::Wrong(error.to_string()))?;
    Ok(Ok(answer))
}
