//! What is answered on which listener. The socket tells who asks; TCP does not, so only what the page needs to show is
//! served there, and nothing that changes anything.

use super::origin::{Hosts, Refusal};
use axum::http::{HeaderMap, Method, Uri, header};

/// Addresses served to the page on TCP, besides its own files. A list of what is open, not of what is shut: what is added to
/// the API is not on TCP before somebody has thought about it.
const OPEN: &[&str] = &[
    "/v1/flows",
    "/v1/flows/count",
    "/v1/history",
    "/v1/history/rules",
    "/v1/rules",
    "/v1/rules/counters",
    "/v1/stats",
    "/v1/top",
    "/v1/version",
    "/v1/web",
];

/// What is asked with a body and changes nothing, and is served on TCP.
const OPEN_QUESTION: &str = "/v1/explain";

/// What is asked with a body and changes nothing.
const QUESTIONS: &[&str] = &[OPEN_QUESTION, "/v1/diff"];

/// What a listener answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    hosts: Hosts,
    way: Way,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Everything, to whom the socket lets in; changes by a browser only if it may.
    Socket { browsers_change: bool },
    /// What the page shows.
    Page,
    /// One address, for the router to know.
    Metrics,
}

impl Access {
    /// Of the daemon's socket: names besides those without a dot, and whether the page may change anything there.
    #[must_use]
    pub fn socket(names: &[String], browsers_change: bool) -> Self {
        Self { hosts: Hosts::of_socket(names), way: Way::Socket { browsers_change } }
    }

    /// Of a TCP listener that serves the page under these names besides its address.
    #[must_use]
    pub fn page(names: &[String]) -> Self {
        Self { hosts: Hosts::of_listener(names), way: Way::Page }
    }

    /// Of a TCP listener for monitoring on this machine.
    #[must_use]
    pub fn metrics() -> Self {
        Self { hosts: Hosts::of_listener(&[]), way: Way::Metrics }
    }

    /// Whether the page may change anything here.
    #[must_use]
    pub const fn page_changes(&self) -> bool {
        matches!(self.way, Way::Socket { browsers_change: true })
    }

    /// Whether a request may be answered.
    ///
    /// # Errors
    /// Says why not.
    pub fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        self.hosts.check(method, uri, headers)?;
        let path = uri.path();
        let reads = matches!(*method, Method::GET | Method::HEAD);
        match self.way {
            Way::Socket { browsers_change } => {
                let is_browser =
                    headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site");
                if is_browser && !reads && !browsers_change && !QUESTIONS.contains(&path) {
                    return Err(Refusal::ReadOnly);
                }
            }
            Way::Page => {
                let is_file = path == "/" || path.starts_with("/assets/");
                let is_open = if reads { is_file || OPEN.contains(&path) } else { path == OPEN_QUESTION };
                if !is_open {
                    return Err(Refusal::NotHere(format!("{method} {path}")));
                }
            }
            Way::Metrics => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(access: &Access, request: &str, headers: &[(&'static str, &'static str)]) -> Result<(), Refusal> {
        let (method, path) = request.split_once(' ').unwrap();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        access.check(&method.parse().unwrap(), &path.parse().unwrap(), &map)
    }

    const HOST: (&str, &str) = ("host", "127.0.0.1:8080");

    #[test]
    fn on_tcp_only_what_the_page_shows_is_answered() {
        let page = Access::page(&[]);
        for open in [
            "GET /",
            "HEAD /",
            "GET /assets/main.js",
            "GET /v1/stats",
            "GET /v1/flows?proto=6",
            "POST /v1/explain",
        ] {
            assert_eq!(ask(&page, open, &[HOST]), Ok(()), "{open}");
        }
        for shut in [
            "POST /v1/apply",
            "POST /v1/flows/flush",
            "POST /v1/rollback",
            "POST /v1/confirm",
            "POST /v1/diff",
            "POST /v1/stats",
            "DELETE /",
            "PUT /v1/explain",
            "GET /v1/explain",
            "GET /v1/flows/events",
            "GET /v1/sysctl",
            "GET /v1/stats/",
            "GET /v1/capture",
            "GET /v1/anything",
        ] {
            let asked = ask(&page, shut, &[HOST]);
            let is_question = shut == "PUT /v1/explain";
            assert!(matches!(asked, Err(Refusal::NotHere(_))) || is_question, "{shut}: {asked:?}");
        }
        assert!(!page.page_changes());
    }

    #[test]
    fn at_the_socket_programs_may_do_all_and_browsers_what_they_are_allowed() {
        let browser = [HOST, ("origin", "http://127.0.0.1:8080"), ("sec-fetch-site", "same-origin")];
        let (shut, open) = (Access::socket(&[], false), Access::socket(&[], true));
        for change in ["POST /v1/apply", "POST /v1/flows/flush", "POST /v1/anything"] {
            assert_eq!(ask(&shut, change, &[HOST]), Ok(()), "{change}");
            assert_eq!(ask(&shut, change, &browser), Err(Refusal::ReadOnly), "{change}");
            assert_eq!(ask(&shut, change, &browser[..2]), Err(Refusal::ReadOnly), "{change}");
            assert_eq!(ask(&open, change, &browser), Ok(()), "{change}");
        }
        for read in ["GET /v1/stats", "POST /v1/explain", "POST /v1/diff"] {
            assert_eq!(ask(&shut, read, &browser), Ok(()), "{read}");
        }
        assert!(open.page_changes() && !shut.page_changes());
        let other = [HOST, ("origin", "http://evil.example")];
        assert!(matches!(ask(&open, "POST /v1/apply", &other), Err(Refusal::CrossSite(_))));
    }
}
