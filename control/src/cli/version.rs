//! `fwctl version`: how the tool and the daemon were built, and whether they belong together.

use super::CliError;
use super::client::Client;
use crate::api::types::{BuildFacts, Version};
use crate::build_facts;
use clap::Args;
use serde::Serialize;
use std::io::Write;

/// Arguments of `fwctl version`.
#[derive(Clone, Debug, Default, Args)]
pub struct VersionArgs {
    /// One JSON object: fwctl, fwd (null if it cannot be reached), differences.
    #[arg(long)]
    pub json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Both<'a> {
    fwctl: Own<'a>,
    fwd: Option<&'a Version>,
    differences: &'a [String],
}

/// The tool itself, which has no process id that is of interest.
#[derive(Serialize)]
struct Own<'a> {
    version: &'a str,
    build: BuildFacts,
}

/// Says what both are. Without a daemon the tool's own facts are printed all the same.
pub(super) fn run(
    client: &Client,
    args: &VersionArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), CliError> {
    let own = Own { version: env!("CARGO_PKG_VERSION"), build: build_facts::facts() };
    if !args.json {
        write!(out, "fwctl {}\n{}", own.version, own.build)?;
        // What follows may fail or take time, and this is true anyway.
        out.flush()?;
    }
    let daemon: Result<Version, CliError> = client.get("/v1/version");
    let differences = daemon.as_ref().map(|daemon| differences(&own, daemon)).unwrap_or_default();
    if args.json {
        let both = Both { fwctl: own, fwd: daemon.as_ref().ok(), differences: &differences };
        serde_json::to_writer(&mut *out, &both).map_err(std::io::Error::from)?;
        writeln!(out)?;
        daemon?;
        return Ok(());
    }
    let daemon = daemon?;
    writeln!(out, "fwd {} (process {})", daemon.version, daemon.pid)?;
    if let Some(build) = &daemon.build {
        write!(out, "{build}")?;
    }
    if !differences.is_empty() {
        out.flush()?;
        writeln!(
            err,
            "fwctl: warning: fwctl and the fwd that runs are not of the same build: {}. Restart fwd to run what is \
             installed",
            differences.join("; ")
        )?;
    }
    Ok(())
}

fn differences(own: &Own<'_>, daemon: &Version) -> Vec<String> {
    let mut found = Vec::new();
    if own.version != daemon.version {
        found.push(format!("version {} here, {} there", own.version, daemon.version));
    }
    if let Some(build) = &daemon.build {
        found.extend(own.build.differences(build));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Own<'static> {
        Own { version: "1.2.0", build: BuildFacts { commit: Some("abc".into()), ..build_facts::facts() } }
    }

    fn daemon(version: &str, build: Option<BuildFacts>) -> Version {
        Version { version: version.into(), pid: 7, build }
    }

    #[test]
    fn the_same_build_does_not_differ() {
        assert!(differences(&own(), &daemon("1.2.0", Some(own().build))).is_empty());
        // A commit that one of them does not know says nothing.
        let unknown = BuildFacts { commit: None, ..own().build };
        assert!(differences(&own(), &daemon("1.2.0", Some(unknown))).is_empty());
        assert!(differences(&own(), &daemon("1.2.0", None)).is_empty());
    }

    #[test]
    fn every_difference_is_named() {
        let other =
            BuildFacts { commit: Some("def-dirty".into()), profile: "odd".into(), ..build_facts::facts() };
        let found = differences(&own(), &daemon("1.1.9", Some(other)));
        assert_eq!(
            found,
            [
                "version 1.2.0 here, 1.1.9 there".to_owned(),
                "commit abc here, def-dirty there".to_owned(),
                format!("profile {} here, odd there", build_facts::facts().profile),
            ]
        );
    }

    #[test]
    fn an_older_daemon_is_understood() {
        let version: Version = serde_json::from_str(r#"{"version":"0.0.9","pid":3}"#).unwrap();
        assert_eq!(version, daemon("0.0.9", None).with_pid(3));
    }

    impl Version {
        fn with_pid(self, pid: u32) -> Self {
            Self { pid, ..self }
        }
    }
}
