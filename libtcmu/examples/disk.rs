//! Makes a disk out of a file, the way go-tcmu's users know it: `disk IMAGE` and there is `/dev/tcmufile/<name>` until Enter is pressed.
use std::{env, fs::File, path::Path};

use tcmu::disk::Disk;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let image = env::args().nth(1).ok_or("usage: disk IMAGE")?;
    let name = Path::new(&image).file_name().and_then(|n| n.to_str()).ok_or("the image has no name")?.to_owned();
    let file = File::options().read(true).write(true).open(&image)?;
    let size = file.metadata()?.len();
    let disk = Disk::builder(name).size(size).directory("/dev/tcmufile").start(file)?;
    println!("{}", disk.path().unwrap_or(Path::new("?")).display());
    let _ = std::io::stdin().read_line(&mut String::new());
    disk.stop()?;
    Ok(())
}
