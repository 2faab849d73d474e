//! The terminal, taken and given back on every way out: the end, an error, a panic on any thread, signals.

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use std::fs::File;
use std::io::{self, BufWriter};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A screen to draw on.
pub(super) type Screen = Terminal<CrosstermBackend<BufWriter<File>>>;

/// The terminal as long as it is ours.
pub(super) struct Taken {
    pub(super) screen: Screen,
    /// Somebody wants us to end.
    signalled: Arc<AtomicBool>,
}

impl Taken {
    /// Takes the terminal that standard output is.
    ///
    /// # Errors
    /// If it is none, or does not do what is asked of it.
    pub(super) fn new() -> io::Result<Self> {
        let signalled = Arc::new(AtomicBool::new(false));
        for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&signalled))?;
        }
        // Not `io::stdout()`, whose lock `fwctl` holds: a thread that panics could not give the terminal back.
        let out = output()?;
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            before(panic);
        }));
        enable_raw_mode()?;
        let taken = output().and_then(|mut out| execute!(out, EnterAlternateScreen));
        let screen = taken.and_then(|()| Terminal::new(CrosstermBackend::new(BufWriter::new(out))));
        match screen {
            Ok(screen) => Ok(Self { screen, signalled }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }

    /// Whether a signal asked us to end.
    pub(super) fn is_signalled(&self) -> bool {
        self.signalled.load(Ordering::Relaxed)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        give_back();
    }
}

fn output() -> io::Result<File> {
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

/// As it was before. Whatever fails here, the rest is still worth doing; the terminal may be gone.
fn give_back() {
    if let Ok(mut out) = output() {
        let _ = execute!(out, LeaveAlternateScreen, Show);
    }
    let _ = disable_raw_mode();
}
