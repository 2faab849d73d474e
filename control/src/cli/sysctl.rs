//! `fwctl sysctl`: connection tracking settings, shown and changed as sysctl(8) does it.

use super::CliError;
use super::args::SysctlArgs;
use super::client::Client;
use super::flows::percent_encode;
use std::io::Write;

/// What the kernel calls them.
const PREFIX: &str = "net.netfilter.nf_conntrack_";

pub(super) fn run(client: &Client, args: &SysctlArgs, out: &mut dyn Write) -> Result<(), CliError> {
    let bare = |name: &str| {
        let name = name.trim().replace('/', ".");
        name.strip_prefix(PREFIX).or(name.strip_prefix("nf_conntrack_")).unwrap_or(&name).to_owned()
    };
    if args.settings.is_empty() {
        for (name, value) in all(client)? {
            writeln!(out, "{name} = {value}")?;
        }
        return Ok(());
    }
    for setting in &args.settings {
        let Some((name, value)) = setting.split_once('=') else {
            if args.write {
                return Err(CliError::Usage(format!("`{setting}` is no NAME=VALUE")));
            }
            let name = bare(setting);
            let known = all(client)?;
            let Some((_, value)) = known.iter().find(|(known, _)| *known == name) else {
                return Err(CliError::Wrong(format!(
                    "there is no setting `{name}`; `fwctl sysctl` lists all"
                )));
            };
            writeln!(out, "{name} = {value}")?;
            continue;
        };
        let (name, value) = (bare(name), value.trim());
        let target = format!("/v1/sysctl?name={}&value={}", percent_encode(&name), percent_encode(value));
        client.post_bytes(&target, Vec::new())?;
        writeln!(out, "{name} = {value}")?;
    }
    Ok(())
}

fn all(client: &Client) -> Result<Vec<(String, u32)>, CliError> {
    client.get("/v1/sysctl")
}
