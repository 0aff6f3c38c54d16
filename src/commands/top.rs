//! `s3mount top`: a live picture of mounts at work.
//!
//! A thread asks the daemons once a second, so that one that hangs does not hold up the keys; this one draws what came and
//! reads keys. The terminal is restored on every way out: a key, a signal, a panic (ratatui's hook). No mount is touched.

mod draw;
mod model;
mod rates;
mod words;

use std::io::IsTerminal;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use tokio::signal::unix::{SignalKind, signal};

use self::draw::Palette;
use self::model::{Model, Wish};
use super::status::{ask, mount_at};
use crate::config::cli::TopArgs;
use crate::export::status::Status;
use crate::lifecycle::Failure;
use crate::lifecycle::place::{MountEntry, mounts};

/// How often the daemons are asked.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How long a key may wait for its effect, and an answer to be drawn.
const TICK: Duration = Duration::from_millis(100);

/// How long the picture may take to end by itself after a signal.
const LAST_DRAW_LIMIT: Duration = Duration::from_secs(1);

/// One round of questions: each mount that is there, with its answer or why there was none.
type Round = Vec<(MountEntry, Result<Status, String>)>;

/// Watches until q is pressed or a signal comes.
pub(super) fn run(arguments: &TopArgs) -> Result<(), Failure> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::usage("top draws on a terminal, and this is none: s3mount status tells the same once"));
    }
    let chosen = arguments.dir.as_deref().map(|dir| mount_at(dir).map(|entry| entry.device)).transpose()?;
    let ended = watch_signals()?;
    let rounds = ask_around();
    let broken = |error: std::io::Error| Failure::system(format!("the terminal cannot be drawn on: {error}"));
    // From here on a panic restores the terminal too.
    // Dropping a terminal that hung up would panic: its cursor cannot be shown, and that cannot be said.
    let mut terminal = ManuallyDrop::new(ratatui::try_init().map_err(broken)?);
    let palette = Palette::new(std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()));
    let outcome = watch(&mut terminal, &rounds, &ended, chosen, palette);
    // Nothing can be said on a terminal that hung up, not even that it cannot be restored.
    let _ = (terminal.show_cursor(), ratatui::try_restore());
    outcome.or_else(|error| {
        // A terminal that hangs up breaks what is drawn before its signal has come.
        std::thread::sleep(LAST_DRAW_LIMIT);
        if ended.load(SeqCst) { Ok(()) } else { Err(broken(error)) }
    })
}

fn watch(
    terminal: &mut DefaultTerminal,
    rounds: &Receiver<Round>,
    ended: &AtomicBool,
    mut chosen: Option<u64>,
    palette: Palette,
) -> std::io::Result<()> {
    let mut model = Model::default();
    while !ended.load(SeqCst) {
        for round in rounds.try_iter() {
            hear(&mut model, round);
        }
        if let Some(device) = chosen
            && let Some(at) = model.mounts.iter().position(|mount| mount.device == device)
        {
            model.chosen = at;
            chosen = None;
        }
        terminal.draw(|frame| draw::draw(frame, &model, palette))?;
        if event::poll(TICK)?
            && let Event::Key(key) = event::read()?
            && let Some(wish) = wish_of(key)
            && model.obey(wish)
        {
            return Ok(());
        }
    }
    Ok(())
}

/// What was answered while the picture is paused is not drawn later: the curves then show a gap in time as one step.
fn hear(model: &mut Model, round: Round) {
    if model.is_paused {
        return;
    }
    let present: Vec<_> = round.iter().map(|(entry, _)| (entry.device, entry.dir.display().to_string())).collect();
    model.found(&present);
    for (entry, answer) in round {
        if let Some(mount) = model.mounts.iter_mut().find(|mount| mount.device == entry.device) {
            mount.hear(answer);
        }
    }
}

fn wish_of(key: KeyEvent) -> Option<Wish> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    match key.code {
        KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Wish::Quit),
        KeyCode::Char('q') | KeyCode::Esc => Some(Wish::Quit),
        KeyCode::Char('p' | ' ') => Some(Wish::Pause),
        KeyCode::Right | KeyCode::Down | KeyCode::Tab => Some(Wish::Next),
        KeyCode::Left | KeyCode::Up | KeyCode::BackTab => Some(Wish::Previous),
        _ => None,
    }
}

/// Asks all mounts, again and again, until nobody listens.
fn ask_around() -> Receiver<Round> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        loop {
            let ours = mounts().into_iter().filter(|entry| entry.kind == "fuse.s3mount");
            let round = ours.map(|entry| {
                // Where it is stands before it in the title.
                let answer = ask(&entry).map_err(|_| "dead or hung".to_owned());
                (entry, answer)
            });
            if sender.send(round.collect()).is_err() {
                return;
            }
            std::thread::sleep(ASK_EVERY);
        }
    });
    receiver
}

/// Raised by the signals that end a program.
fn watch_signals() -> Result<Arc<AtomicBool>, Failure> {
    let failed = |error: std::io::Error| Failure::system(format!("no signals: {error}"));
    let ended = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let raised = Arc::clone(&ended);
    let (mut terminate, mut interrupt, mut hangup) = {
        let _entered = runtime.enter();
        let made = |kind| signal(kind).map_err(failed);
        (made(SignalKind::terminate())?, made(SignalKind::interrupt())?, made(SignalKind::hangup())?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        raised.store(true, SeqCst);
        // On a terminal that hung up, waiting for keys never comes back: then nobody else ends the program.
        std::thread::sleep(LAST_DRAW_LIMIT);
        let _ = (execute!(std::io::stdout(), Show), ratatui::try_restore());
        std::process::exit(0);
    });
    Ok(ended)
}
