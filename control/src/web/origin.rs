//! Who may ask through a browser: only a page that this daemon served, under a name that is the daemon's.
//!
//! Two attacks need no access to the machine, only a browser that has it. Another site's page sends requests here
//! (cross-site request): browsers say so in `Origin` and `Sec-Fetch-Site`. Or another site's name is made to resolve to
//! our address (DNS rebinding), so that its page is of "our" origin: then `Host` has that name. An address is nobody's
//! name, and so are `localhost` and names that cannot be in the DNS.

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, Uri, header};
use std::net::IpAddr;

/// Under which names a listener answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    /// Names besides addresses and `localhost`, in lower case.
    pub names: Vec<String>,
    /// Whether any name without a dot will do: programs that talk over a Unix socket have to say something.
    pub any_single_label: bool,
}

/// Why a request is not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It came for somebody else.
    #[error(
        "this daemon is not called `{0}`: use its address or localhost, or put the name into `web.hosts`"
    )]
    Host(String),
    /// A browser sent it on behalf of another site.
    #[error("this request comes from another site ({0}); the daemon answers its own page only")]
    CrossSite(String),
    /// It asks for what is not given here.
    #[error(
        "{0} is not served on TCP, where nobody can be told apart: ask at the daemon's socket (fwctl does)"
    )]
    NotHere(String),
    /// A browser is to change something, and may not.
    #[error("the web page may not change anything; `web.write = true` lets it, on the daemon's socket")]
    ReadOnly,
}

impl Hosts {
    /// Those of the API's Unix socket.
    #[must_use]
    pub fn of_socket(names: &[String]) -> Self {
        Self { names: lower(names), any_single_label: true }
    }

    /// Those of a TCP listener.
    #[must_use]
    pub fn of_listener(names: &[String]) -> Self {
        Self { names: lower(names), any_single_label: false }
    }

    /// Whether a request may be answered.
    ///
    /// # Errors
    /// If it is for another host, or from another site.
    pub fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let said = headers.get_all(header::HOST).iter().map(|host| host.to_str().unwrap_or("?"));
        // A request by a proxy's manners names its host in the first line as well.
        let mut hosts: Vec<&str> = said.chain(uri.authority().map(Authority::as_str)).collect();
        hosts.dedup();
        let host = match hosts.as_slice() {
            [] => "",
            [host] => host,
            [_, other, ..] => return Err(Refusal::Host((*other).to_owned())),
        };
        if !self.is_ours(host) {
            return Err(Refusal::Host(host.to_owned()));
        }
        // A link to the page from elsewhere, a dashboard say, is fine: the other site sees nothing of what comes.
        let site = headers.get("sec-fetch-site").map_or("none", |site| site.to_str().unwrap_or("?"));
        let is_link = method == Method::GET
            && uri.path() == "/"
            && headers.get("sec-fetch-mode").is_some_and(|mode| mode == "navigate")
            && headers.get("sec-fetch-dest").is_some_and(|dest| dest == "document");
        if !matches!(site, "same-origin" | "none") && !is_link {
            return Err(Refusal::CrossSite(site.to_owned()));
        }
        // Browsers that do not send the former, and plain HTTP to other than loopback addresses.
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
        let origin = origin.to_str().unwrap_or("?");
        let name = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        if name.is_some_and(|name| name.eq_ignore_ascii_case(host)) {
            Ok(())
        } else {
            Err(Refusal::CrossSite(origin.to_owned()))
        }
    }

    fn is_ours(&self, host: &str) -> bool {
        let name = without_port(host);
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        let name = bare.trim_end_matches('.').to_ascii_lowercase();
        // HTTP/1.0 has no such header.
        host.is_empty() && self.any_single_label
            || bare.parse::<IpAddr>().is_ok()
            || name == "localhost"
            || name.ends_with(".localhost")
            || self.any_single_label && !name.contains('.') && name.bytes().all(is_of_name)
            || self.names.contains(&name)
    }
}

fn lower(names: &[String]) -> Vec<String> {
    names.iter().map(|name| name.trim_end_matches('.').to_ascii_lowercase()).collect()
}

const fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// `name:80` without the port, `[::1]:80` as well.
fn without_port(host: &str) -> &str {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) && (!name.contains(':') || name.ends_with(']')) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderName;

    fn ask(hosts: &Hosts, request: &str, headers: &[(&str, &str)]) -> Result<(), Refusal> {
        let (method, path) = request.split_once(' ').unwrap();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        hosts.check(&method.parse().unwrap(), &path.parse().unwrap(), &map)
    }

    #[test]
    fn addresses_and_names_of_this_machine_are_ours_and_no_other() {
        let names = ["Gate.Example.ORG.".to_owned(), "gate".to_owned()];
        let tcp = Hosts::of_listener(&names);
        for host in [
            "127.0.0.1:8080",
            "127.0.0.1",
            "[::1]:8080",
            "[::1]",
            "192.0.2.7:80",
            "localhost:8080",
            "LOCALHOST",
            "a.localhost:1",
            "gate.example.org:8080",
            "GATE.example.org.",
            "gate:8080",
        ] {
            assert_eq!(ask(&tcp, "GET /v1/stats", &[("host", host)]), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "fwd",
            "x y",
            "127.0.0.1:8080:9",
            "gate.example.org.evil.example",
            "[::1",
            "notlocalhost",
            "1.2.3",
            "\u{e9}",
        ] {
            assert!(matches!(ask(&tcp, "GET /", &[("host", host)]), Err(Refusal::Host(_))), "{host}");
        }
        let socket = Hosts::of_socket(&names);
        for host in ["fwd", "x", "localhost", "127.0.0.1:8080", "gate.example.org", ""] {
            assert_eq!(ask(&socket, "GET /v1/stats", &[("host", host)]), Ok(()), "{host}");
        }
        assert!(ask(&socket, "POST /v1/flows/flush", &[("host", "evil.example:8080")]).is_err());
        assert_eq!(ask(&socket, "GET /v1/stats", &[]), Ok(()), "HTTP/1.0");
        assert!(ask(&socket, "GET /", &[("host", "localhost"), ("host", "evil.example")]).is_err());
    }

    #[test]
    fn other_sites_are_refused_whatever_browser_tells_of_them() {
        let host = ("host", "127.0.0.1:8080");
        let hosts = Hosts::of_listener(&[]);
        let ours = [host, ("origin", "http://127.0.0.1:8080"), ("sec-fetch-site", "same-origin")];
        assert_eq!(ask(&hosts, "POST /v1/explain", &ours), Ok(()));
        assert_eq!(ask(&hosts, "GET /", &[host, ("sec-fetch-site", "none")]), Ok(()));
        for (name, value) in [
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("origin", "http://127.0.0.1:8081"),
            ("origin", "http://127.0.0.1:80800"),
            ("origin", "127.0.0.1:8080"),
            ("origin", "file://127.0.0.1:8080"),
            ("origin", ""),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("sec-fetch-site", "\u{e9}"),
        ] {
            for request in ["POST /v1/flows/flush", "GET /v1/flows", "POST /"] {
                let asked = ask(&hosts, request, &[host, (name, value)]);
                assert!(matches!(asked, Err(Refusal::CrossSite(_))), "{request} {name}: {value}: {asked:?}");
            }
        }
    }

    #[test]
    fn a_link_from_elsewhere_opens_the_page_and_nothing_else() {
        let link = |request, mode, dest| {
            let headers = [
                ("host", "localhost:8080"),
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", mode),
                ("sec-fetch-dest", dest),
            ];
            ask(&Hosts::of_listener(&[]), request, &headers)
        };
        assert_eq!(link("GET /", "navigate", "document"), Ok(()));
        for (request, mode, dest) in [
            ("GET /v1/stats", "navigate", "document"),
            ("POST /", "navigate", "document"),
            ("GET /", "navigate", "iframe"),
            ("GET /", "no-cors", "script"),
        ] {
            assert!(link(request, mode, dest).is_err(), "{request} {mode} {dest}");
        }
    }
}
