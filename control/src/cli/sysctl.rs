//! `fwctl sysctl`: connection tracking settings, shown and changed as sysctl(8) does it.

use super::CliError;
use super::args::SysctlArgs;
use super::client::Client;
use super::flows::percent_encode;
use std::io::Write;

/// What stands before a setting's name in the kernel's names, with dots.
const PREFIXES: [&str; 3] = ["net.netfilter.nf_conntrack_", "net.nf_conntrack_", "nf_conntrack_"];

/// The name a setting goes by here, of one that is written in any of the kernel's ways: `net.netfilter.nf_conntrack_max`,
/// `net/netfilter/nf_conntrack_max`, `net.nf_conntrack_max`, `nf_conntrack_max`, `net.ipv4.ipfrag_time`, a path below
/// `/proc/sys`, or as it is.
fn bare(name: &str) -> String {
    let dotted = dotted(name);
    let name = dotted.strip_prefix(".proc.sys.").unwrap_or(&dotted);
    if let Some(rest) = name.strip_prefix("net.ipv4.").filter(|rest| rest.starts_with("ipfrag_")) {
        return rest.to_owned();
    }
    PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name).to_owned()
}

fn dotted(name: &str) -> String {
    name.trim().replace('/', ".")
}

/// Does what is asked, all of it; the exit code says whether everything went well.
pub(super) fn run(
    client: &Client,
    args: &SysctlArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, CliError> {
    let SysctlArgs { settings, write, all, values, quiet, ignore, json } = args;
    if settings.is_empty() || *all {
        let known = known(client)?;
        if *json {
            let object: serde_json::Map<_, _> =
                known.into_iter().map(|(name, value)| (name, value.into())).collect();
            writeln!(out, "{}", serde_json::Value::Object(object))?;
            return Ok(0);
        }
        for (name, value) in known {
            show(&name, &value.to_string(), *values, out)?;
        }
        return Ok(0);
    }
    let mut code = 0;
    for setting in settings {
        let done = match setting.split_once('=') {
            Some((name, value)) => change(client, name, value.trim())
                .and_then(|()| if *quiet { Ok(()) } else { show(&dotted(name), value.trim(), *values, out) }),
            None if *write => Err(CliError::Usage(format!("`{setting}` is no NAME=VALUE"))),
            None => match read(client, setting) {
                Ok(None) if *ignore => Ok(()),
                Ok(None) => Err(CliError::Wrong(format!(
                    "there is no setting `{}`; `fwctl sysctl` lists all",
                    dotted(setting)
                ))),
                Ok(Some(value)) => show(&dotted(setting), &value.to_string(), *values, out),
                Err(error) => Err(error),
            },
        };
        if let Err(error) = done {
            out.flush()?;
            error.report(err)?;
            code = error.code();
        }
    }
    Ok(code)
}

fn show(name: &str, value: &str, only_value: bool, out: &mut dyn Write) -> Result<(), CliError> {
    if only_value {
        return Ok(writeln!(out, "{value}")?);
    }
    Ok(writeln!(out, "{name} = {value}")?)
}

fn change(client: &Client, name: &str, value: &str) -> Result<(), CliError> {
    let (name, value) = (percent_encode(&bare(name)), percent_encode(value));
    client.post_bytes(&format!("/v1/sysctl?name={name}&value={value}"), Vec::new())?;
    Ok(())
}

fn read(client: &Client, name: &str) -> Result<Option<u32>, CliError> {
    let name = bare(name);
    Ok(known(client)?.into_iter().find(|(known, _)| *known == name).map(|(_, value)| value))
}

fn known(client: &Client) -> Result<Vec<(String, u32)>, CliError> {
    client.get("/v1/sysctl")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_known_by_all_their_names() {
        for (name, expected) in [
            ("udp_timeout", "udp_timeout"),
            ("nf_conntrack_udp_timeout", "udp_timeout"),
            ("net.netfilter.nf_conntrack_udp_timeout", "udp_timeout"),
            ("net/netfilter/nf_conntrack_udp_timeout", "udp_timeout"),
            ("/proc/sys/net/netfilter/nf_conntrack_udp_timeout", "udp_timeout"),
            (" net.nf_conntrack_max ", "max"),
            ("net.ipv4.ipfrag_time", "ipfrag_time"),
            ("net/ipv4/ipfrag_high_thresh", "ipfrag_high_thresh"),
            ("net.ipv4.ip_forward", "net.ipv4.ip_forward"),
            ("half_open_percent", "half_open_percent"),
        ] {
            assert_eq!(bare(name), expected, "{name}");
        }
    }
}
