//! What this build is: which commit, by which compiler, for which machine. Any thread; nothing here changes while we run.

use crate::api::types::BuildFacts;
use std::sync::OnceLock;

/// What is known of this build.
#[must_use]
pub fn facts() -> BuildFacts {
    BuildFacts {
        commit: known(env!("PALISADE_BUILD_COMMIT")),
        target: env!("PALISADE_BUILD_TARGET").to_owned(),
        rustc: env!("PALISADE_BUILD_RUSTC").to_owned(),
        profile: env!("PALISADE_BUILD_PROFILE").to_owned(),
        opt_level: env!("PALISADE_BUILD_OPT_LEVEL").to_owned(),
        assertions: cfg!(debug_assertions),
        libbpf: bpf::libbpf_version(),
        features: list(env!("PALISADE_BUILD_FEATURES")),
        cpu_features: list(env!("PALISADE_BUILD_CPU_FEATURES")),
    }
}

/// What `--version` prints behind the program's name; `-V` prints the first line of it.
#[must_use]
pub fn long_version() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| format!("{}\n{}", env!("CARGO_PKG_VERSION"), facts()).trim_end().to_owned())
}

fn known(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn list(text: &str) -> Vec<String> {
    text.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_build_is_known_to_itself() {
        let facts = facts();
        assert!(facts.rustc.starts_with("rustc 1."), "{facts:?}");
        assert!(facts.target.contains(std::env::consts::ARCH), "{facts:?}");
        assert!(!facts.profile.is_empty() && !facts.opt_level.is_empty(), "{facts:?}");
        assert!(facts.assertions, "tests run with them");
        let (major, minor) = facts.libbpf.split_once('.').expect("a version");
        assert!(
            major.parse::<u32>().is_ok_and(|major| major >= 1) && minor.parse::<u32>().is_ok(),
            "{facts:?}"
        );
        let text = long_version();
        assert_eq!(text.lines().next(), Some(env!("CARGO_PKG_VERSION")));
        assert!(text.contains(&facts.rustc) && text.contains(&facts.target), "{text}");
    }
}
