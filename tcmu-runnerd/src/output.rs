//! What the programs print for people. Whoever reads it may stop at any time (`tcmuctl devices | head -1`): what a program does must not
//! depend on that, so it goes on, in silence. Anything else that keeps output from being written is an error at the end.
use std::{
    fmt,
    io::{self, ErrorKind, Write},
    sync::OnceLock,
};

/// The first line that could not be written, and why.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// Standard output, as long as somebody reads it.
#[derive(Debug)]
pub struct Out;

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        unless_closed(io::stdout().write(bytes), bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        unless_closed(io::stdout().flush(), ())
    }
}

fn unless_closed<T>(result: io::Result<T>, closed: T) -> io::Result<T> {
    match result {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(closed),
        result => result,
    }
}

/// What [`out!`](crate::out) and [`outln!`](crate::outln) call.
pub fn print(text: fmt::Arguments<'_>) {
    if let Err(error) = Out.write_fmt(text) {
        let _ = LOST.set(error);
    }
}

/// What [`errln!`](crate::errln) calls. Nobody could be told that this was not written.
pub fn complain(text: fmt::Arguments<'_>) {
    let _ = io::stderr().write_fmt(text);
}

/// Writes what is still to be written. The first error there was.
pub fn finish() -> Result<(), &'static io::Error> {
    if let Err(error) = Out.flush() {
        let _ = LOST.set(error);
    }
    LOST.get().map_or(Ok(()), Err)
}

/// `print!`, for readers that may go away.
#[macro_export]
macro_rules! out {
    ($($text:tt)*) => { $crate::output::print(format_args!($($text)*)) };
}

/// `println!`, for readers that may go away.
#[macro_export]
macro_rules! outln {
    ($($text:tt)*) => { $crate::output::print(format_args!("{}\n", format_args!($($text)*))) };
}

/// `eprintln!`, for readers that may go away.
#[macro_export]
macro_rules! errln {
    ($($text:tt)*) => { $crate::output::complain(format_args!("{}\n", format_args!($($text)*))) };
}
