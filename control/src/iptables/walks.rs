//! Jumps between chains: none may loop, none may nest deeper than the kernel allows. Control thread and tools only.

use std::collections::HashMap;

use super::diagnostics::{Diagnostic, Span};
use super::syntax::{Chain, Rule, Target};

/// Chains that a walk may be inside of below a built-in one: the kernel's NFT_JUMP_STACK_SIZE (16) less the built-in.
const JUMP_DEPTH_MAX: usize = 15;

#[derive(Clone, Copy, PartialEq)]
enum Mark {
    Unseen,
    Open,
    /// Left, with the number of chains on the longest walk from here, itself included.
    Done(usize),
}

/// Reports jumps that loop, and walks deeper than the kernel allows.
pub(super) fn check_walks(chains: &[Chain], diagnostics: &mut Vec<Diagnostic>) {
    let index: HashMap<&str, usize> =
        chains.iter().enumerate().map(|(index, chain)| (chain.name.as_str(), index)).collect();
    let edges: Vec<Vec<(usize, Span)>> = chains
        .iter()
        .map(|chain| chain.rules.iter().filter_map(|rule| edge(rule, &index)).collect())
        .collect();
    let mut marks = vec![Mark::Unseen; chains.len()];
    for start in 0..chains.len() {
        let reachable = chains.get(start).is_some_and(|chain| chain.policy.is_some());
        if let Some((cycle, span)) = walk(start, &edges, &mut marks) {
            let names: Vec<&str> = cycle
                .iter()
                .filter_map(|&chain| chains.get(chain))
                .map(|chain| chain.name.as_str())
                .collect();
            let message = format!("jumps go round in a loop: {}", names.join(" -> "));
            diagnostics.push(if reachable {
                Diagnostic::error(span, message)
            } else {
                Diagnostic::unsupported(span, message)
                    .hint("no built-in chain reaches it, so iptables lets it be; remove it")
            });
            return;
        }
        if let (true, Some(Mark::Done(depth)), Some(chain)) = (reachable, marks.get(start), chains.get(start))
            && depth - 1 > JUMP_DEPTH_MAX
        {
            let span = edges.get(start).and_then(|edges| edges.first()).map_or(chain.span, |&(_, span)| span);
            let message = format!(
                "chains nest {} deep below {}, the kernel allows {JUMP_DEPTH_MAX}",
                depth - 1,
                chain.name
            );
            diagnostics.push(Diagnostic::error(span, message));
        }
    }
}

fn edge(rule: &Rule, index: &HashMap<&str, usize>) -> Option<(usize, Span)> {
    match &rule.target {
        Target::Chain { name, span, .. } => index.get(name.as_str()).map(|&to| (to, *span)),
        _ => None,
    }
}

/// Depth-first walk without recursion; gives the first loop found, first chain repeated at its end.
fn walk(start: usize, edges: &[Vec<(usize, Span)>], marks: &mut [Mark]) -> Option<(Vec<usize>, Span)> {
    if marks[start] != Mark::Unseen {
        return None;
    }
    marks[start] = Mark::Open;
    // Chain, next edge to follow, longest walk below it so far.
    let mut path: Vec<(usize, usize, usize)> = vec![(start, 0, 0)];
    while let Some((chain, next, below)) = path.last_mut() {
        let Some(&(to, span)) = edges[*chain].get(*next) else {
            let (chain, depth) = (*chain, *below + 1);
            marks[chain] = Mark::Done(depth);
            path.pop();
            if let Some((_, _, below)) = path.last_mut() {
                *below = depth.max(*below);
            }
            continue;
        };
        *next += 1;
        match marks[to] {
            Mark::Done(depth) => *below = depth.max(*below),
            Mark::Open => {
                let loop_start = path.iter().position(|&(chain, _, _)| chain == to).unwrap_or(0);
                let mut cycle: Vec<usize> = path[loop_start..].iter().map(|&(chain, _, _)| chain).collect();
                cycle.push(to);
                return Some((cycle, span));
            }
            Mark::Unseen => {
                marks[to] = Mark::Open;
                path.push((to, 0, 0));
            }
        }
    }
    None
}
