//! The pages as they are on disk: text, and the fenced blocks in it. Pure but for reading files.

use std::fs;
use std::path::{Path, PathBuf};

/// One file of documentation.
#[derive(Debug)]
pub(crate) struct Page {
    /// Where it is, from the repository's root.
    pub(crate) path: PathBuf,
    /// All of it.
    pub(crate) text: String,
}

/// A fenced block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// Line of its first line of content, from 1.
    pub(crate) line: usize,
    /// What it is: the first word behind the fence.
    pub(crate) kind: String,
    /// File to write it to.
    pub(crate) file: Option<String>,
    /// Why it is not run.
    pub(crate) ignored: Option<String>,
    /// Its lines.
    pub(crate) lines: Vec<String>,
}

impl Block {
    /// Its content as a file.
    pub(crate) fn text(&self) -> String {
        self.lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }
}

impl Page {
    /// What a failure calls it.
    pub(crate) fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }

    /// All blocks, in order.
    pub(crate) fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut open: Option<(Block, usize)> = None;
        for (index, line) in self.text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            match (&mut open, line.trim_start().strip_prefix("```")) {
                (None, Some(info)) => {
                    let block = Self::begin(info, index + 2)
                        .unwrap_or_else(|why| panic!("{}: {why}", self.at(index + 1)));
                    open = Some((block, indent));
                }
                (Some(_), Some("")) => blocks.extend(open.take().map(|(block, _)| block)),
                (Some((block, indent)), _) => {
                    block.lines.push(line.get(*indent..).unwrap_or_default().to_owned());
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a block does not end", self.path.display());
        blocks
    }

    fn begin(info: &str, line: usize) -> Result<Block, String> {
        let mut words = info.split(',').map(str::trim);
        let kind = words.next().unwrap_or_default().to_owned();
        let mut block = Block { line, kind, file: None, ignored: None, lines: Vec::new() };
        for word in words {
            match word.split_once('=') {
                Some(("file", file)) => block.file = Some(file.to_owned()),
                Some(("ignore", why)) if !why.is_empty() => block.ignored = Some(why.to_owned()),
                _ => return Err(format!("`{word}` behind a fence: file=PATH and ignore=REASON are known")),
            }
        }
        Ok(block)
    }
}

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every page of the book, and the README.
pub(crate) fn pages() -> Vec<Page> {
    let mut paths = vec![PathBuf::from("README.md")];
    markdown_below(Path::new("docs/src"), &mut paths);
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(root().join(&path))
            .unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
        Page { path, text }
    };
    paths.into_iter().map(read).collect()
}

fn markdown_below(dir: &Path, paths: &mut Vec<PathBuf>) {
    let entries =
        fs::read_dir(root().join(dir)).unwrap_or_else(|error| panic!("read {}: {error}", dir.display()));
    for entry in entries {
        let entry = entry.expect("a directory can be read to its end");
        let path = dir.join(entry.file_name());
        if root().join(&path).is_dir() {
            markdown_below(&path, paths);
        } else if path.extension().is_some_and(|kind| kind == "md") {
            paths.push(path);
        }
    }
}

#[test]
fn blocks_are_found_with_what_their_fences_say() {
    let text =
        "a\n```console,ignore=needs-ice\n$ x\n```\n- b\n  ```toml,file=a/b.toml\n  c = 1\n    d\n  ```\n";
    let page = Page { path: "p.md".into(), text: text.to_owned() };
    let blocks = page.blocks();
    assert_eq!(blocks.len(), 2);
    assert_eq!((blocks[0].line, blocks[0].kind.as_str()), (3, "console"));
    assert_eq!(blocks[0].ignored.as_deref(), Some("needs-ice"));
    assert_eq!(blocks[1].file.as_deref(), Some("a/b.toml"));
    assert_eq!(blocks[1].text(), "c = 1\n  d\n");
    assert!(Page::begin("console,ignored", 1).is_err());
    assert!(Page::begin("console,ignore=", 1).is_err());
}
