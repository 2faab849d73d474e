//! `fwctl web`: where the web page is.

use super::CliError;
use super::args::WebArgs;
use super::client::Client;
use crate::api::types::WebView;
use std::io::Write;
use std::path::Path;

/// Port at the near end of a tunnel, for the command shown.
const TUNNEL_PORT: u16 = 8080;

pub(super) fn run(client: &Client, args: &WebArgs, out: &mut dyn Write) -> Result<(), CliError> {
    let answer = client.get_bytes("/v1/web")?;
    if args.json {
        out.write_all(&answer)?;
        return Ok(writeln!(out)?);
    }
    let view: WebView = client.parse(&answer)?;
    Ok(out.write_all(words(&view, client.socket()).as_bytes())?)
}

/// Which addresses to open, and what can be done there.
fn words(view: &WebView, socket: &Path) -> String {
    let WebView { listen, write } = view;
    let mut said = match listen {
        Some(addr) => format!("http://{addr}/ shows this gateway; nothing can be changed there\n"),
        None => {
            "no TCP address serves the web page; web.listen = \"127.0.0.1:8080\" in the configuration would\n"
                .to_owned()
        }
    };
    let may = if *write {
        "changes can be confirmed and rolled back there, with your rights at the socket"
    } else {
        "nothing can be changed there (web.write)"
    };
    let socket = socket.display();
    said.push_str(&format!(
        "from elsewhere: ssh -L {TUNNEL_PORT}:{socket} root@HOST, then open http://localhost:{TUNNEL_PORT}/; {may}\n"
    ));
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_where_to_go_and_what_may_be_done_there() {
        let socket = Path::new("/run/palisade/fwd.sock");
        let off = words(&WebView { listen: None, write: false }, socket);
        assert!(off.contains("web.listen") && off.contains("ssh -L 8080:/run/palisade/fwd.sock"), "{off}");
        let on = words(&WebView { listen: "[::1]:8080".parse().ok(), write: true }, socket);
        assert!(on.starts_with("http://[::1]:8080/ ") && on.contains("confirmed and rolled back"), "{on}");
    }
}
