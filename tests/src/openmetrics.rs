//! A strict reader of OpenMetrics 1.0 text: whatever the format does not allow is a panic that says where. Stricter than
//! scrapers are, so that what passes here is understood by all of them.

use std::collections::{BTreeMap, BTreeSet};

/// One line of numbers.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Name with its suffix, `x_total`.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Value.
    pub value: f64,
}

/// All samples of one name.
#[derive(Clone, Debug, Default)]
pub struct Family {
    /// `counter`, `gauge`, `histogram` or `info`.
    pub kind: String,
    /// Unit, if it has one.
    pub unit: Option<String>,
    /// What it is.
    pub help: String,
    /// Its samples in order.
    pub samples: Vec<Sample>,
}

/// A whole page.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Families by name.
    pub families: BTreeMap<String, Family>,
}

/// Suffixes that samples of a kind have.
fn suffixes(kind: &str) -> &'static [&'static str] {
    match kind {
        "counter" => &["_total"],
        "gauge" => &[""],
        "info" => &["_info"],
        "histogram" => &["_bucket", "_sum", "_count"],
        other => panic!("no kind of metric we export: {other}"),
    }
}

impl Page {
    /// Reads a page.
    ///
    /// # Panics
    /// If it is not OpenMetrics 1.0 to the letter.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let body = text.strip_suffix("# EOF\n").expect("the page ends with # EOF");
        assert!(body.ends_with('\n'), "the last line has no end");
        let mut page = Self::default();
        let mut current: Option<String> = None;
        let mut series = BTreeSet::new();
        for line in body.lines() {
            assert!(!line.is_empty(), "an empty line");
            if let Some(rest) = line.strip_prefix("# ") {
                page.descriptor(rest, &mut current);
                continue;
            }
            let sample = read_sample(line);
            let name = current.clone().unwrap_or_else(|| panic!("no family for {line}"));
            let family = page.families.get_mut(&name).expect("the current family is known");
            let suffix = sample.name.strip_prefix(&name).unwrap_or_else(|| panic!("{line} within {name}"));
            assert!(suffixes(&family.kind).contains(&suffix), "{line} is no {} {name}", family.kind);
            assert!(series.insert((sample.name.clone(), sample.labels.clone())), "twice: {line}");
            if family.kind == "counter" {
                assert!(sample.value >= 0.0 && sample.value.is_finite(), "{line}");
            }
            family.samples.push(sample);
        }
        page.families.iter().for_each(|(name, family)| check(name, family));
        page
    }

    /// A `# HELP`, `# TYPE` or `# UNIT` line.
    fn descriptor(&mut self, rest: &str, current: &mut Option<String>) {
        let mut words = rest.splitn(3, ' ');
        let (what, name) = (words.next().unwrap_or_default(), words.next().expect("a name"));
        let value = words.next().unwrap_or_default().to_owned();
        assert!(is_name(name), "{name}");
        if current.as_deref() != Some(name) {
            assert!(!self.families.contains_key(name), "{name} comes twice");
            self.families.insert(name.to_owned(), Family::default());
            *current = Some(name.to_owned());
        }
        let family = self.families.get_mut(name).expect("inserted above");
        assert!(family.samples.is_empty(), "{rest} behind samples");
        match what {
            "HELP" => {
                assert!(family.help.is_empty() && !value.is_empty(), "{rest}");
                family.help = value;
            }
            "TYPE" => {
                assert!(family.kind.is_empty(), "{rest}");
                family.kind = value;
            }
            "UNIT" => {
                assert!(family.unit.is_none() && name.ends_with(&format!("_{value}")), "{rest}");
                family.unit = Some(value);
            }
            other => panic!("# {other}"),
        }
    }

    /// Every sample called so, in order.
    pub fn samples(&self, name: &str) -> impl Iterator<Item = &Sample> {
        self.families.values().flat_map(|family| &family.samples).filter(move |sample| sample.name == name)
    }

    /// The sum of all samples called so that have these labels.
    ///
    /// # Panics
    /// If there is none: a name that is wrong must not read as zero.
    #[track_caller]
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |sample: &&Sample| {
            labels.iter().all(|(label, value)| sample.labels.get(*label).is_some_and(|of| of == value))
        };
        let found: Vec<f64> = self.samples(name).filter(has).map(|sample| sample.value).collect();
        assert!(!found.is_empty(), "no {name} with {labels:?}");
        found.iter().sum()
    }

    /// Labels that samples called so have; `None` if there are no such samples, nor may be.
    #[must_use]
    pub fn labels(&self, name: &str) -> Option<BTreeSet<String>> {
        let mut families = self.families.iter();
        families.find(|(family, of)| {
            suffixes(&of.kind).iter().any(|suffix| name.strip_suffix(suffix) == Some(family.as_str()))
        })?;
        Some(self.samples(name).flat_map(|sample| sample.labels.keys().cloned()).collect())
    }

    /// Values that a label has anywhere.
    #[must_use]
    pub fn values(&self, label: &str) -> BTreeSet<String> {
        let samples = self.families.values().flat_map(|family| &family.samples);
        samples.filter_map(|sample| sample.labels.get(label).cloned()).collect()
    }
}

/// What holds for a family as a whole.
fn check(name: &str, family: &Family) {
    assert!(!family.kind.is_empty() && !family.help.is_empty(), "{name} lacks TYPE or HELP");
    for suffix in ["_total", "_info", "_bucket", "_sum", "_count", "_created"] {
        assert!(!name.ends_with(suffix), "{name} ends like a sample");
    }
    match family.kind.as_str() {
        "info" => assert!(family.samples.iter().all(|sample| sample.value == 1.0), "{name}"),
        "histogram" => check_histogram(name, family),
        _ => {}
    }
}

fn check_histogram(name: &str, family: &Family) {
    // Suffix, bound and value of samples with the same other labels.
    type Group<'a> = Vec<(&'a str, Option<f64>, f64)>;
    let mut groups: BTreeMap<BTreeMap<String, String>, Group<'_>> = BTreeMap::new();
    for sample in &family.samples {
        let mut labels = sample.labels.clone();
        let bound = labels.remove("le").map(|le| number(&le));
        let suffix = sample.name.strip_prefix(name).unwrap_or_default();
        assert_eq!(suffix == "_bucket", bound.is_some(), "{sample:?}");
        groups.entry(labels).or_default().push((suffix, bound, sample.value));
    }
    for (labels, samples) in groups {
        let one = |suffix: &str| {
            let found: Vec<f64> =
                samples.iter().filter(|(is, ..)| *is == suffix).map(|(.., value)| *value).collect();
            assert_eq!(found.len(), 1, "{name}{suffix} {labels:?}");
            found[0]
        };
        let (count, _) = (one("_count"), one("_sum"));
        let buckets: Vec<(f64, f64)> =
            samples.iter().filter_map(|(_, bound, value)| bound.map(|bound| (bound, *value))).collect();
        for pair in buckets.windows(2) {
            assert!(pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1, "{name} {labels:?}: {pair:?}");
        }
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, count)), "{name} {labels:?}");
    }
}

fn read_sample(line: &str) -> Sample {
    let at = line.find(['{', ' ']).unwrap_or_else(|| panic!("no value: {line}"));
    let (name, rest) = line.split_at(at);
    assert!(is_name(name), "{line}");
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => read_labels(rest, line),
        None => (BTreeMap::new(), rest),
    };
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("no value: {line}"));
    assert!(!value.contains(' '), "more than a value: {line}");
    Sample { name: name.to_owned(), labels, value: number(value) }
}

fn read_labels<'a>(mut rest: &'a str, line: &str) -> (BTreeMap<String, String>, &'a str) {
    let mut labels = BTreeMap::new();
    loop {
        let (label, behind) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
        assert!(is_name(label) && !label.contains(':') && !label.starts_with("__"), "{line}");
        let (mut value, mut chars) = (String::new(), behind.char_indices());
        let end = loop {
            match chars.next().unwrap_or_else(|| panic!("no end: {line}")) {
                (at, '"') => break at + 1,
                (_, '\\') => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, escaped @ ('\\' | '"'))) => value.push(escaped),
                    other => panic!("escaped {other:?}: {line}"),
                },
                (_, char) => value.push(char),
            }
        };
        assert!(labels.insert(label.to_owned(), value).is_none(), "{label} twice: {line}");
        rest = &behind[end..];
        match rest.strip_prefix('}') {
            Some(rest) => return (labels, rest),
            None => rest = rest.strip_prefix(',').unwrap_or_else(|| panic!("no comma: {line}")),
        }
    }
}

fn number(text: &str) -> f64 {
    match text {
        "+Inf" => f64::INFINITY,
        text if text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte)) => {
            text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
        }
        text => panic!("no number: {text}"),
    }
}

fn is_name(name: &str) -> bool {
    let is_first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || byte == b':';
    name.bytes().next().is_some_and(is_first)
        && name.bytes().all(|byte| is_first(byte) || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# HELP a_bytes A.\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\na_bytes_total{x=\"1\",y=\"a\\\"b\"} 5\n\
                        # HELP h H.\n# TYPE h histogram\nh_sum 3.5\nh_count 2\nh_bucket{le=\"1.0\"} 1\nh_bucket{le=\"+Inf\"} 2\n# EOF\n";

    #[test]
    fn a_good_page_is_read() {
        let page = Page::read(GOOD);
        assert_eq!(page.sum("a_bytes_total", &[("y", "a\"b")]), 5.0);
        assert_eq!(page.families["a_bytes"].unit.as_deref(), Some("bytes"));
        assert!(page.labels("a_bytes").is_none() && page.labels("h_bucket").is_some());
    }

    #[test]
    fn a_bad_page_is_refused() {
        for (from, to) in [
            ("# EOF\n", ""),
            ("# EOF\n", "\n# EOF\n"),
            ("a_bytes_total{", "a_bytes{"),
            ("y=\"a", "x=\"a"),
            ("\"} 5", "\"} x"),
            ("le=\"1.0\"} 1", "le=\"1.0\"} 3"),
            ("h_count 2", "h_count 3"),
            ("# HELP h H.", "# HELP h H.\n# HELP h H."),
            ("# UNIT a_bytes bytes", "# UNIT a_bytes packets"),
            ("h_sum 3.5\n", ""),
            ("# TYPE h histogram\n", ""),
            ("h_sum 3.5", "h_sum 3.5\nh_sum 3.5"),
        ] {
            let page = GOOD.replacen(from, to, 1);
            assert_ne!(page, GOOD);
            assert!(std::panic::catch_unwind(|| Page::read(&page)).is_err(), "{from} -> {to}");
        }
    }
}
