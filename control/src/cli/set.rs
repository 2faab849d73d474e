//! `fwctl set`: commands in the language of ipset(8), sent to the daemon as they are.

use super::CliError;
use super::args::SetArgs;
use super::client::Client;
use crate::api::limits::BODY_MAX_BYTES;
use crate::api::types::{SetsAnswer, SetsRequest};
use std::io::{Read as _, Write};
use std::path::Path;

pub(super) fn run(
    client: &Client,
    args: &SetArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, CliError> {
    let request = request(&args.words)?;
    let body = serde_json::to_vec(&request)
        .map_err(|error| CliError::Usage(format!("this cannot be sent: {error}")))?;
    if body.len() > BODY_MAX_BYTES {
        return Err(CliError::Wrong(format!("the file has more than {BODY_MAX_BYTES} bytes")));
    }
    let answer = client.post_bytes("/v1/sets", body)?;
    let SetsAnswer { text, notes, is_in } = client.parse(&answer)?;
    out.write_all(text.as_bytes())?;
    for note in notes {
        writeln!(err, "{note}")?;
    }
    Ok(u8::from(is_in == Some(false)))
}

/// `restore` is read here, from `-file FILE` or standard input; everything else goes as one line.
fn request(words: &[String]) -> Result<SetsRequest, CliError> {
    let is_restore = |word: &&String| matches!(word.as_str(), "restore" | "-R" | "--restore");
    if !words.iter().take(4).any(|word| is_restore(&word)) {
        return Ok(SetsRequest {
            text: line(words)?,
            file: "fwctl set".to_owned(),
            ..SetsRequest::default()
        });
    }
    let mut path = Path::new("-");
    let mut exist = false;
    let mut rest = words.iter().filter(|word| !is_restore(word));
    while let Some(word) = rest.next() {
        match word.as_str() {
            "-exist" | "--exist" | "-!" => exist = true,
            "-file" | "--file" | "-f" => {
                let file = rest.next().ok_or_else(|| CliError::Usage("`-file` wants a file".to_owned()))?;
                path = Path::new(file);
            }
            other => return Err(CliError::Usage(format!("`{other}` is not known to `restore`"))),
        }
    }
    let (text, file) = read(path)?;
    Ok(SetsRequest { text, file, restore: true, exist })
}

/// The words as a line that reads as they do.
fn line(words: &[String]) -> Result<String, CliError> {
    let quoted = words.iter().map(|word| {
        if word.contains(['"', '\n']) {
            return Err(CliError::Wrong(format!("`{word}`: quotes and line ends cannot stand in a set")));
        }
        let is_plain = !word.is_empty() && !word.contains([' ', '\t']);
        Ok(if is_plain { word.clone() } else { format!("\"{word}\"") })
    });
    Ok(quoted.collect::<Result<Vec<_>, _>>()?.join(" "))
}

fn read(path: &Path) -> Result<(String, String), CliError> {
    let name = if path == Path::new("-") { "standard input".into() } else { path.display().to_string() };
    let most = u64::try_from(BODY_MAX_BYTES).unwrap_or(u64::MAX) + 1;
    let mut text = String::new();
    let done = if path == Path::new("-") {
        std::io::stdin().lock().take(most).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(most).read_to_string(&mut text))
    };
    done.map_err(|error| CliError::Wrong(format!("cannot read {name}: {error}")))?;
    Ok((text, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &[&str]) -> Vec<String> {
        text.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn words_keep_their_blanks_on_the_way() {
        let request = request(&words(&["add", "a", "10.0.0.1", "comment", "two words"])).unwrap();
        assert_eq!(request.text, "add a 10.0.0.1 comment \"two words\"");
        assert!(!request.restore);
        assert!(line(&words(&["a\"b"])).is_err());
    }

    #[test]
    fn a_file_to_restore_is_read_and_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "create a hash:ip\n").unwrap();
        let path = file.path().to_str().unwrap();
        let request = request(&words(&["-exist", "restore", "-file", path])).unwrap();
        assert_eq!((request.text.as_str(), request.file.as_str()), ("create a hash:ip\n", path));
        assert!(request.restore && request.exist);
        assert!(super::request(&words(&["restore", "-bogus"])).is_err());
    }
}
