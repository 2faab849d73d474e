//! Links: each leads to a page, a heading or a file that is there; the summary has every page; nothing is fetched from
//! elsewhere when the book is read.

use super::book::{Page, pages, root};
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

/// What mdBook calls a heading, as GitHub does but for repeated ones.
fn slug(heading: &str) -> String {
    let plain = heading.trim().chars().filter_map(|c| match c {
        c if c.is_alphanumeric() || c == '_' || c == '-' => Some(c.to_ascii_lowercase()),
        c if c.is_whitespace() => Some('-'),
        _ => None,
    });
    plain.collect()
}

/// Lines outside of fenced blocks, with their numbers.
fn prose(page: &Page) -> impl Iterator<Item = (usize, &str)> {
    let mut is_fenced = false;
    page.text.lines().enumerate().filter_map(move |(index, line)| {
        if line.trim_start().starts_with("```") {
            is_fenced = !is_fenced;
            return None;
        }
        (!is_fenced).then_some((index + 1, line))
    })
}

fn anchors(page: &Page) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for (_, line) in prose(page) {
        if let Some(heading) = line.strip_prefix('#') {
            let slug = slug(heading.trim_start_matches('#'));
            let mut unique = slug.clone();
            let mut n = 0;
            while !anchors.insert(unique.clone()) {
                n += 1;
                unique = format!("{slug}-{n}");
            }
        }
        for anchor in line.split("<a id=\"").skip(1) {
            anchors.extend(anchor.split('"').next().map(str::to_owned));
        }
    }
    anchors
}

/// Targets of the links in a line, whatever stands in backquotes aside.
fn targets(line: &str) -> Vec<&str> {
    let text = line.split('`').step_by(2);
    let mut targets = Vec::new();
    for part in text {
        targets.extend(part.split("](").skip(1).filter_map(|rest| rest.split(')').next()));
    }
    // A link whose text is in backquotes: what closes it stands in the next part.
    targets
}

fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    let mut wrong = Vec::new();
    let mut count = 0;
    for page in &pages {
        for (line, text) in prose(page) {
            for target in targets(text) {
                count += 1;
                if target.starts_with("http://") || target.starts_with("https://") {
                    continue;
                }
                let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
                let path = match file {
                    "" => page.path.clone(),
                    file => normal(&page.path.parent().unwrap_or(Path::new("")).join(file)),
                };
                if !root().join(&path).exists() {
                    wrong.push(format!("{}: {target}: there is no {}", page.at(line), path.display()));
                } else if page.path.starts_with("docs/src") && !path.starts_with("docs/src") {
                    wrong.push(format!("{}: {target} is not part of the book", page.at(line)));
                } else if !anchor.is_empty() {
                    let there = pages.iter().find(|page| page.path == path).map(anchors).unwrap_or_default();
                    if !there.contains(anchor) {
                        wrong.push(format!("{}: {} has no heading #{anchor}", page.at(line), path.display()));
                    }
                }
            }
        }
    }
    assert!(count > 20, "links are found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_summary_has_every_page_once() {
    let pages = pages();
    let summary = pages.iter().find(|page| page.path.ends_with("SUMMARY.md")).expect("there is a summary");
    let mut listed: Vec<PathBuf> = Vec::new();
    for (_, line) in prose(summary) {
        listed.extend(targets(line).into_iter().map(|target| Path::new("docs/src").join(target)));
    }
    let unique: BTreeSet<_> = listed.iter().cloned().collect();
    assert_eq!(unique.len(), listed.len(), "a page is listed twice: {listed:?}");
    let there: BTreeSet<_> = pages
        .iter()
        .map(|page| page.path.clone())
        .filter(|path| path.starts_with("docs/src") && !path.ends_with("SUMMARY.md"))
        .collect();
    assert_eq!(unique, there, "left: SUMMARY.md, right: docs/src");
    for page in &pages {
        let first = page.text.lines().next().unwrap_or_default();
        assert!(first.starts_with("# "), "{} begins with its title", page.path.display());
    }
}

#[test]
fn nothing_is_fetched_from_elsewhere() {
    for page in pages() {
        for (line, text) in prose(&page) {
            for word in ["<script", "<img", "<link", "<iframe", "](http://", "![](http"] {
                assert!(!text.contains(word), "{}: {word}", page.at(line));
            }
            assert!(
                !(text.contains("![") && text.contains("](http")),
                "{}: a picture from elsewhere",
                page.at(line)
            );
        }
        for include in page.text.split("{{#include ").skip(1) {
            let file = include.split([':', '}']).next().unwrap_or_default();
            let path = normal(&page.path.parent().unwrap_or(Path::new("")).join(file));
            assert!(
                root().join(&path).is_file(),
                "{}: no {} to include",
                page.path.display(),
                path.display()
            );
        }
    }
}

#[test]
fn headings_are_called_as_mdbook_calls_them() {
    assert_eq!(slug(" `GET /v1/stats`"), "get-v1stats");
    assert_eq!(slug(" Why was it dropped?"), "why-was-it-dropped");
    assert_eq!(targets("a [b](c.md#d), [`e`](f.md) and `[g](h)`"), ["c.md#d", "f.md"]);
}
