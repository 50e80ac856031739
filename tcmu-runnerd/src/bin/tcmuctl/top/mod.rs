//! `tcmuctl top`: what devices do at the moment. On a terminal a screen that follows them ([`screen`]), elsewhere one interval as a table.
mod rates;
mod screen;

use std::{
    io::{self, IsTerminal},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Args;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event},
};
use serde_json::Value;
use signal_hook::consts::{SIGHUP, SIGTERM};
use tcmu_runnerd::statistics::DeviceStatistics;

use self::{
    rates::{Column, Rate, rates, sum},
    screen::{Screen, Wish},
};
use crate::{statistics::devices, table::aligned};

/// How long a key waits, at most.
const GLANCE: Duration = Duration::from_millis(100);

/// What `tcmuctl top` is asked.
#[derive(Args)]
pub(crate) struct Top {
    /// Only these, as user_0/name.
    devices: Vec<String>,
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = interval)]
    interval: f64,
    /// Show one interval and end; so it does where the output is no terminal.
    #[arg(long)]
    once: bool,
}

fn interval(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("0.1 to 3600 is needed".into()),
    }
}

pub(crate) fn top(top: &Top, json: bool) -> anyhow::Result<()> {
    let first = Look::at(&top.devices)?;
    let interval = Duration::from_secs_f64(top.interval);
    if !top.once && !json && io::stdout().is_terminal() && io::stdin().is_terminal() {
        return live(&top.devices, interval, first);
    }
    thread::sleep(interval);
    let now = Look::at(&top.devices)?;
    let rates = rates(&first.devices, &now.devices, now.at - first.at);
    if json {
        outln!("{:#}", Value::from(rates.iter().map(Rate::json).collect::<Vec<_>>()));
    } else {
        let rows = rates.iter().map(|rate| Column::ALL.iter().map(|column| column.cell(rate)).collect()).collect();
        out!("{}\n\n{}", sum(&rates), aligned(&Column::ALL.map(Column::heading), rows, 2));
    }
    Ok(())
}

/// What was found at a time.
struct Look {
    at: Instant,
    devices: Vec<DeviceStatistics>,
}

impl Look {
    fn at(wanted: &[String]) -> anyhow::Result<Look> {
        let devices = devices(wanted)?;
        Ok(Look { at: Instant::now(), devices })
    }
}

/// The screen, until it is left.
fn live(wanted: &[String], interval: Duration, first: Look) -> anyhow::Result<()> {
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, ended.clone()).context("signals cannot be caught")?;
    }
    // A daemon that is slow to answer, or gone, must not keep a key waiting.
    let (to_us, looks) = mpsc::channel();
    let (intervals, to_looker) = mpsc::channel();
    let wanted = wanted.to_vec();
    thread::Builder::new().name("looks".into()).spawn(move || look(&wanted, interval, &to_looker, &to_us))?;
    let terminal = ratatui::try_init().context("the terminal cannot be used")?;
    let outcome = follow(terminal, &mut Screen::new(interval, first), &looks, &intervals, &ended);
    ratatui::try_restore().context("the terminal cannot be restored")?;
    outcome.context("the terminal cannot be used")
}

/// Looks until nobody wants to know.
fn look(wanted: &[String], mut interval: Duration, intervals: &Receiver<Duration>, to: &Sender<Result<Look, String>>) {
    loop {
        match intervals.recv_timeout(interval) {
            Ok(another) => interval = another,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if to.send(Look::at(wanted).map_err(|error| error.to_string())).is_err() {
            return;
        }
    }
}

fn follow(
    mut terminal: DefaultTerminal,
    screen: &mut Screen,
    looks: &Receiver<Result<Look, String>>,
    intervals: &Sender<Duration>,
    ended: &AtomicBool,
) -> io::Result<()> {
    let mut stale = true;
    while !ended.load(Ordering::Relaxed) {
        if stale {
            terminal.draw(|frame| screen.draw(frame))?;
        }
        stale = event::poll(GLANCE)?;
        if stale && let Event::Key(key) = event::read()? {
            match screen.key(key) {
                Some(Wish::Quit) => return Ok(()),
                Some(Wish::Interval(interval)) => {
                    let _ = intervals.send(interval);
                }
                None => {}
            }
        }
        for look in looks.try_iter() {
            screen.take(look);
            stale = true;
        }
    }
    Ok(())
}
