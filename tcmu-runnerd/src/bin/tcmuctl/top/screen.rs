//! The screen of `tcmuctl top`: a table of devices, and on request what one of them does, as far as the interval shows it.
use std::time::Duration;

use ratatui::{
    Frame,
    crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
    layout::{Alignment, Constraint, Direction, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span, Text},
    widgets::{Bar, BarChart, BarGroup, Block, Cell, Paragraph, Row, Table, TableState},
};
use tcmu::server::counters::{Histogram, Kind};
use tcmu_runnerd::statistics::DeviceStatistics;

use super::{
    Look,
    rates::{Column, Rate, rates, sort, sum},
};
use crate::{
    statistics::{errors, latencies_of},
    table::time,
};

/// The interval's limits, and by how much a key changes it.
const SHORTEST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(60);

const KEYS: &str = "q quit  ↑↓ select  enter details  s sort  space pause  +- interval";

/// What a key asks of who shows the screen.
#[derive(Debug, PartialEq)]
pub(super) enum Wish {
    Quit,
    Interval(Duration),
}

pub(super) struct Screen {
    interval: Duration,
    last: Look,
    rates: Vec<Rate>,
    /// All commands, where it is none.
    sort: Option<Column>,
    /// By its name: rows move.
    selected: Option<String>,
    details: bool,
    paused: bool,
    /// Why the last look failed.
    problem: Option<String>,
}

impl Screen {
    pub(super) fn new(interval: Duration, first: Look) -> Screen {
        // Nothing is known yet of how fast they are.
        let rates = rates(&first.devices, &first.devices, interval);
        Screen { interval, last: first, rates, sort: None, selected: None, details: false, paused: false, problem: None }
    }

    /// The next look. What is shown stands still while it is paused, or while nobody answers.
    pub(super) fn take(&mut self, look: Result<Look, String>) {
        match look {
            Err(problem) => self.problem = Some(problem),
            Ok(look) => {
                self.problem = None;
                if !self.paused {
                    self.rates = rates(&self.last.devices, &look.devices, look.at - self.last.at);
                    sort(&mut self.rates, self.sort);
                }
                self.last = look;
            }
        }
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> Option<Wish> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        match key.code {
            KeyCode::Char('q') => return Some(Wish::Quit),
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Some(Wish::Quit),
            KeyCode::Esc if !self.details => return Some(Wish::Quit),
            KeyCode::Esc => self.details = false,
            KeyCode::Enter => {
                self.details = !self.details;
                if self.selected_row().is_none() {
                    self.select(0);
                }
            }
            KeyCode::Char('s') => {
                self.sort = next(self.sort);
                sort(&mut self.rates, self.sort);
            }
            KeyCode::Char(' ') => self.paused = !self.paused,
            KeyCode::Char('+') => return Some(self.longer(self.interval * 2)),
            KeyCode::Char('-') => return Some(self.longer(self.interval / 2)),
            KeyCode::Down | KeyCode::Char('j') => self.select(self.selected_row().map_or(0, |row| row + 1)),
            KeyCode::Up | KeyCode::Char('k') => self.select(self.selected_row().map_or(0, |row| row.saturating_sub(1))),
            KeyCode::Home => self.select(0),
            KeyCode::End => self.select(usize::MAX),
            _ => {}
        }
        None
    }

    fn longer(&mut self, interval: Duration) -> Wish {
        self.interval = interval.clamp(SHORTEST, LONGEST);
        Wish::Interval(self.interval)
    }

    fn selected_row(&self) -> Option<usize> {
        let selected = self.selected.as_ref()?;
        self.rates.iter().position(|rate| rate.device.device == *selected)
    }

    fn select(&mut self, row: usize) {
        self.selected = self.rates.get(row).or(self.rates.last()).map(|rate| rate.device.device.clone());
    }

    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let details = self.selected_row().filter(|_| self.details).map(|row| &self.rates[row]);
        let below = if details.is_some() { frame.area().height.saturating_sub(2) * 3 / 5 } else { 0 };
        let rows = [Constraint::Length(1), Constraint::Min(3), Constraint::Length(below), Constraint::Length(1)];
        let [head, table, below, foot] = Layout::vertical(rows).areas(frame.area());
        frame.render_widget(self.head(), head);
        self.table(frame, table);
        if let Some(rate) = details {
            detail(frame, below, rate);
        }
        frame.render_widget(Span::styled(KEYS, Style::new().add_modifier(Modifier::DIM)), foot);
    }

    fn head(&self) -> Line<'_> {
        let mut head = Line::from(vec![Span::styled(sum(&self.rates), Style::new().add_modifier(Modifier::BOLD))]);
        head.push_span(format!(
            "  every {:.1} s, by {}",
            self.interval.as_secs_f64(),
            self.sort.map_or("commands", Column::heading)
        ));
        if self.paused {
            head.push_span(Span::styled("  PAUSED", Style::new().fg(Color::Yellow)));
        }
        if let Some(problem) = &self.problem {
            head.push_span(Span::styled(format!("  {problem}"), Style::new().fg(Color::Red)));
        }
        head
    }

    fn table(&self, frame: &mut Frame<'_>, area: Rect) {
        let columns = self.fitting(area.width);
        let cell = |column: Column, text: String, style| {
            let alignment = if column.is_words() { Alignment::Left } else { Alignment::Right };
            Cell::from(Text::from(text).alignment(alignment)).style(style)
        };
        let heading = columns.iter().map(|&(column, _)| {
            let style = Style::new().add_modifier(Modifier::BOLD);
            let style = if self.sort == Some(column) { style.add_modifier(Modifier::UNDERLINED) } else { style };
            cell(column, column.heading().to_owned(), style)
        });
        let rows = self.rates.iter().map(|rate| {
            Row::new(columns.iter().map(|&(column, _)| cell(column, column.cell(rate), Style::new())))
                .style(style_of(&rate.device))
        });
        let widths = columns.iter().map(|&(_, width)| Constraint::Length(width));
        let table = Table::new(rows, widths).header(Row::new(heading)).column_spacing(2);
        let table = table.row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        let mut state = TableState::new().with_selected(self.selected_row());
        frame.render_stateful_widget(table, area, &mut state);
    }

    /// The columns that there is room for, and how wide they are.
    fn fitting(&self, room: u16) -> Vec<(Column, u16)> {
        let width = |column: Column| {
            let cells = self.rates.iter().map(|rate| column.cell(rate).chars().count());
            cells.chain([column.heading().len()]).max().unwrap_or(0).try_into().unwrap_or(u16::MAX)
        };
        let mut columns = Column::ALL.map(|column| (column, width(column))).to_vec();
        for least in Column::LEAST {
            if columns.iter().map(|(_, width)| usize::from(*width) + 2).sum::<usize>() <= usize::from(room) + 2 {
                break;
            }
            columns.retain(|(column, _)| *column != least);
        }
        columns
    }
}

fn next(sort: Option<Column>) -> Option<Column> {
    match sort.and_then(|column| Column::ALL.iter().position(|other| *other == column)) {
        None => Some(Column::ALL[0]),
        Some(at) => Column::ALL.get(at + 1).copied(),
    }
}

fn style_of(device: &DeviceStatistics) -> Style {
    match device {
        device if device.hangs.is_some() || !device.serving => Style::new().fg(Color::Red),
        _ => Style::new(),
    }
}

/// One device: what it is, how long its commands took, what failed.
fn detail(frame: &mut Frame<'_>, area: Rect, rate: &Rate) {
    let device = &rate.device;
    let block = Block::bordered().title(format!(" {} ", device.device));
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [left, reads, writes] =
        Layout::horizontal([Constraint::Length(64), Constraint::Fill(1), Constraint::Fill(1)]).spacing(1).areas(inner);
    let hangs = device.hangs.map_or(String::new(), |age| format!(", hangs for {} s", age.as_secs()));
    let counters = &device.counters;
    let mut text = format!(
        "{}, {}{hangs}\n{} in flight, {} at most; {} slow\ntaken over {} times, not served for {:.1} s\n\n{}",
        device.handler,
        device.state,
        counters.in_flight,
        counters.in_flight_max,
        counters.slow,
        device.takeovers,
        device.blocked.as_secs_f64(),
        latencies_of(&rate.latency),
    );
    for (key, count) in errors(counters) {
        text += &format!("  {key}: {count} since it was made\n");
    }
    frame.render_widget(Paragraph::new(text), left);
    for (kind, area) in [(Kind::Read, reads), (Kind::Write, writes)] {
        frame.render_widget(chart(kind, &rate.latency[kind as usize], area.width), area);
    }
}

/// How many commands took how long.
fn chart(kind: Kind, latency: &Histogram, width: u16) -> BarChart<'static> {
    let counts = &latency.buckets;
    let first = counts.iter().position(|count| *count > 0).unwrap_or(counts.len());
    let last = counts.iter().rposition(|count| *count > 0).map_or(first, |last| last + 1);
    let label = |bucket| Histogram::limit(bucket).map_or("more".to_owned(), |limit| format!("<{}", time(Some(limit))));
    let bars: Vec<Bar<'_>> = (first..last).map(|bucket| Bar::with_label(label(bucket), counts[bucket])).collect();
    let chart =
        BarChart::default().direction(Direction::Horizontal).bar_width(1).bar_gap(0).data(BarGroup::default().bars(&bars));
    let title = if width > 30 { format!("{}, latency", kind.name()) } else { kind.name().to_owned() };
    chart.block(Block::new().title(title)).bar_style(Style::new().fg(Color::Green))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use ratatui::{Terminal, backend::TestBackend};

    use super::{super::rates::tests::device, *};

    fn look(after: u64, devices: Vec<DeviceStatistics>, begin: Instant) -> Look {
        Look { at: begin + Duration::from_secs(after), devices }
    }

    fn screen(names: &[&str]) -> Screen {
        let begin = Instant::now();
        let devices = |reads| names.iter().zip(1u64..).map(|(name, n)| device(name, reads * n)).collect();
        let mut screen = Screen::new(Duration::from_secs(1), look(0, devices(0), begin));
        screen.take(Ok(look(1, devices(100), begin)));
        screen
    }

    fn press(screen: &mut Screen, code: KeyCode) -> Option<Wish> {
        screen.key(KeyEvent::new(code, KeyModifiers::NONE))
    }

    fn shown(screen: &Screen, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..height).map(line).collect()
    }

    #[test]
    fn the_busiest_stands_first_until_it_is_sorted_otherwise() {
        let mut screen = screen(&["user_0/a", "user_0/b"]);
        let lines = shown(&screen, 140, 10);
        assert!(lines[0].starts_with("2 devices, 300 commands/s, 1.2 MiB/s read"), "{lines:#?}");
        assert!(lines[1].starts_with("DEVICE    HANDLER  R/S"), "{lines:#?}");
        assert!(lines[2].starts_with("user_0/b  file     200"), "{lines:#?}");
        assert!(lines[3].starts_with("user_0/a  file     100"), "{lines:#?}");
        assert_eq!(lines[9], KEYS);
        press(&mut screen, KeyCode::Char('s'));
        assert!(shown(&screen, 140, 10)[2].starts_with("user_0/a"));
    }

    #[test]
    fn what_is_selected_stays_selected_when_rows_move() {
        let mut screen = screen(&["user_0/a", "user_0/b", "user_0/c"]);
        press(&mut screen, KeyCode::Down);
        assert_eq!(screen.selected.as_deref(), Some("user_0/c"));
        press(&mut screen, KeyCode::Char('s'));
        assert_eq!((screen.selected.as_deref(), screen.selected_row()), (Some("user_0/c"), Some(2)));
        press(&mut screen, KeyCode::Down);
        assert_eq!(screen.selected_row(), Some(2), "there is none below");
        press(&mut screen, KeyCode::Home);
        press(&mut screen, KeyCode::Up);
        assert_eq!(screen.selected_row(), Some(0), "there is none above");
    }

    #[test]
    fn details_show_the_interval_and_escape_closes_them_first() {
        let mut screen = screen(&["user_0/a"]);
        assert_eq!(press(&mut screen, KeyCode::Enter), None);
        let lines = shown(&screen, 140, 30).join("\n");
        assert!(lines.contains(" user_0/a ─") && lines.contains("read, latency"), "{lines}");
        assert!(lines.contains("OPERATION  COMMANDS") && lines.contains("taken over 0 times"), "{lines}");
        assert_eq!(press(&mut screen, KeyCode::Esc), None);
        assert!(!shown(&screen, 140, 30).join("\n").contains("OPERATION"));
        assert_eq!(press(&mut screen, KeyCode::Esc), Some(Wish::Quit));
    }

    #[test]
    fn a_narrow_terminal_shows_what_matters_most() {
        let screen = screen(&["user_0/a"]);
        for width in [20, 40, 60, 80, 100, 120] {
            let lines = shown(&screen, width, 6);
            assert!(lines[1].starts_with("DEVICE    "), "{width}: {lines:#?}");
            // A column is there whole, or not at all.
            let headings: Vec<&str> = lines[1].split_whitespace().collect();
            if width >= 40 {
                assert!(
                    headings.iter().all(|heading| Column::ALL.iter().any(|column| column.heading() == *heading)),
                    "{headings:?}"
                );
                assert!(headings.contains(&"R/S") && headings.contains(&"QUEUE"), "{width}: {headings:?}");
            }
        }
    }

    #[test]
    fn a_pause_and_a_daemon_that_is_away_leave_what_is_shown() {
        let mut screen = screen(&["user_0/a"]);
        press(&mut screen, KeyCode::Char(' '));
        let at = screen.last.at + Duration::from_secs(1);
        screen.take(Ok(Look { at, devices: vec![device("user_0/a", 100)] }));
        let lines = shown(&screen, 140, 6);
        assert!(lines[0].contains("100 commands/s") && lines[0].contains("PAUSED"), "{lines:#?}");
        press(&mut screen, KeyCode::Char(' '));
        screen.take(Err("tcmu-runnerd does not run".into()));
        let lines = shown(&screen, 140, 6);
        assert!(lines[0].ends_with("tcmu-runnerd does not run") && lines[2].starts_with("user_0/a"), "{lines:#?}");
        screen.take(Ok(Look { at: at + Duration::from_secs(1), devices: Vec::new() }));
        assert!(shown(&screen, 140, 6)[0].starts_with("0 devices"));
    }

    #[test]
    fn the_interval_has_limits() {
        let mut screen = screen(&[]);
        assert_eq!(press(&mut screen, KeyCode::Char('+')), Some(Wish::Interval(Duration::from_secs(2))));
        for _ in 0..20 {
            press(&mut screen, KeyCode::Char('-'));
        }
        assert_eq!(screen.interval, SHORTEST);
        assert_eq!(press(&mut screen, KeyCode::Enter), None, "there is nothing to show");
    }

    #[test]
    fn no_size_of_terminal_is_too_small() {
        let mut screen = screen(&["user_0/a", "user_0/b"]);
        press(&mut screen, KeyCode::Enter);
        for width in 1..50 {
            for height in 1..14 {
                shown(&screen, width * 3, height);
            }
        }
    }
}
