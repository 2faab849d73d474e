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
    let (words, file) = take_file(&args.words)?;
    let request = request(&words, file)?;
    let body = serde_json::to_vec(&request)
        .map_err(|error| CliError::Usage(format!("this cannot be sent: {error}")))?;
    if body.len() > BODY_MAX_BYTES {
        return Err(CliError::Wrong(format!("the file has more than {BODY_MAX_BYTES} bytes")));
    }
    let answer = client.post_bytes("/v1/sets", body)?;
    let SetsAnswer { text, notes, is_in } = client.parse(&answer)?;
    match file.filter(|_| !request.restore) {
        Some(path) => std::fs::write(path, text)
            .map_err(|error| CliError::Wrong(format!("cannot write {}: {error}", path.display())))?,
        None => out.write_all(text.as_bytes())?,
    }
    for note in notes {
        writeln!(err, "{note}")?;
    }
    Ok(u8::from(is_in == Some(false)))
}

/// The words without `-file FILE`, and that file: it is of this machine, not of the daemon.
fn take_file(words: &[String]) -> Result<(Vec<String>, Option<&Path>), CliError> {
    let (mut rest, mut file) = (Vec::with_capacity(words.len()), None);
    let (mut words, mut is_comment) = (words.iter(), false);
    while let Some(word) = words.next() {
        // Behind `comment` any word is one.
        if !is_comment && matches!(word.as_str(), "-file" | "--file" | "-f") {
            let name = words.next().ok_or_else(|| CliError::Usage(format!("`{word}` wants a file")))?;
            file = Some(Path::new(name));
        } else {
            rest.push(word.clone());
        }
        is_comment = word == "comment";
    }
    Ok((rest, file))
}

/// `restore` is read here, from its file or standard input; everything else goes as one line.
fn request(words: &[String], file: Option<&Path>) -> Result<SetsRequest, CliError> {
    let is_one_of = |word: &str, names: &[&str]| names.contains(&word);
    let is_restore = |word: &&String| is_one_of(word, &["restore", "-R", "--restore"]);
    if !words.iter().take(4).any(|word| is_restore(&word)) {
        let lists = ["list", "-L", "--list", "l", "save", "-S", "--save", "s"];
        if file.is_some() && !words.iter().any(|word| is_one_of(word, &lists)) {
            return Err(CliError::Usage("`-file` goes with restore, list and save".to_owned()));
        }
        return Ok(SetsRequest {
            text: line(words)?,
            file: "fwctl set".to_owned(),
            ..SetsRequest::default()
        });
    }
    let mut exist = false;
    for word in words.iter().filter(|word| !is_restore(word)) {
        match word.as_str() {
            "-exist" | "--exist" | "-!" => exist = true,
            other => return Err(CliError::Usage(format!("`{other}` is not known to `restore`"))),
        }
    }
    let (text, file) = read(file.unwrap_or(Path::new("-")))?;
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

    fn asked(text: &[&str]) -> Result<SetsRequest, CliError> {
        let words = words(text);
        let (words, file) = take_file(&words)?;
        request(&words, file)
    }

    #[test]
    fn words_keep_their_blanks_on_the_way() {
        let request = asked(&["add", "a", "10.0.0.1", "comment", "two words"]).unwrap();
        assert_eq!(request.text, "add a 10.0.0.1 comment \"two words\"");
        assert!(!request.restore);
        assert!(line(&words(&["a\"b"])).is_err());
    }

    #[test]
    fn a_file_to_restore_is_read_and_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "create a hash:ip\n").unwrap();
        let path = file.path().to_str().unwrap();
        let request = asked(&["-exist", "restore", "-file", path]).unwrap();
        assert_eq!((request.text.as_str(), request.file.as_str()), ("create a hash:ip\n", path));
        assert!(request.restore && request.exist);
        assert!(asked(&["restore", "-bogus"]).is_err());
        assert!(asked(&["add", "a", "10.0.0.1", "-file", path]).is_err());
        assert!(asked(&["save", "-file", path]).is_ok() && asked(&["save", "-file"]).is_err());
    }
}
