//! `file`: OTLP JSON, one request a line, with rotation.
//!
//! Writes with plain blocking calls, unbuffered: one write per line, so that a line is with the
//! kernel when its batch settles. They run on a thread per path, so that a disk that hangs holds up
//! that path alone. Never leaves half a line behind: after a failed write the file is cut back to
//! the last whole line, and the batch is tried again. A path that several cores or destinations
//! write to is one [`Sink`] with one writer, so that lines never interleave and rotation happens
//! once.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, SystemTime};

use crate::destination::{File as Settings, Rotation};
use crate::encode::json_of;
use crate::scribe::{self, Page, Scribe, lock};
use crate::transport::{Request, delivered};
use crate::verdict::{FailureKind, Verdict, again};

#[cfg(test)]
mod tests;

/// Every open path of the process.
static OPEN: Mutex<Option<HashMap<PathBuf, Open>>> = Mutex::new(None);

/// What is left of a path's sink: both parts, or only the writer while a write that was given up
/// is still stuck.
struct Open {
    scribe: Weak<Scribe<Writer>>,
    writer: Weak<Mutex<Writer>>,
}

/// A shared handle on one path.
#[derive(Clone)]
pub(crate) struct Sink(Arc<Scribe<Writer>>);

struct Writer {
    settings: Settings,
    /// Opened by the first write, and again after a rotation or a failure.
    file: Option<fs::File>,
    /// The file's length: all of it whole lines.
    bytes: u64,
    /// False until the first open: only that one may truncate.
    opened_before: bool,
    line: Vec<u8>,
}

impl Sink {
    /// The sink of this path; made if nobody has it open. The first one's settings hold for all.
    pub(crate) fn shared(settings: &Settings) -> Sink {
        let path = std::path::absolute(&settings.path).unwrap_or_else(|_| settings.path.clone());
        let mut open = lock(&OPEN);
        let open = open.get_or_insert_default();
        open.retain(|_, open| open.writer.strong_count() > 0);
        let found = open.get(&path);
        if let Some(scribe) = found.and_then(|open| open.scribe.upgrade()) {
            return Sink(scribe);
        }
        let writer = found
            .and_then(|open| open.writer.upgrade())
            .unwrap_or_else(|| Arc::new(Mutex::new(Writer::new(settings))));
        let scribe = Arc::new(Scribe::new("file", Arc::clone(&writer)));
        let handles = Open { scribe: Arc::downgrade(&scribe), writer: Arc::downgrade(&writer) };
        open.insert(path, handles);
        Sink(scribe)
    }

    pub(crate) async fn write(&self, request: &Request<'_>) -> Verdict {
        match self.0.write(request).await {
            Ok(bytes) => {
                request.stats.sent(bytes);
                delivered()
            }
            Err(verdict) => verdict,
        }
    }
}

impl scribe::Write for Writer {
    fn write(&mut self, page: &Page) -> Result<u64, Verdict> {
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        json_of(page.signal, &page.chain, &mut line).map_err(|why| {
            again(FailureKind::Internal, format!("the batch cannot be shown as JSON: {why}"))
        })?;
        line.push(b'\n');
        let written = self.append(&line, SystemTime::now());
        let bytes = line.len() as u64;
        self.line = line;
        written.map(|()| bytes).map_err(|error| {
            let path = self.settings.path.display();
            again(FailureKind::Write, format!("{path}: {error}"))
        })
    }
}

impl Writer {
    fn new(settings: &Settings) -> Writer {
        Writer {
            settings: settings.clone(),
            file: None,
            bytes: 0,
            opened_before: false,
            line: Vec::new(),
        }
    }

    /// Appends a whole line or nothing. `now` names the file that a rotation leaves behind.
    fn append(&mut self, line: &[u8], now: SystemTime) -> io::Result<()> {
        self.open()?;
        if let Some(rotation) = self.settings.rotation
            && self.bytes > 0
            && self.bytes + line.len() as u64 > rotation.bytes_max
        {
            self.rotate(rotation, now)?;
        }
        let file = self.file.as_mut().expect("opened above, and again by a rotation");
        if let Err(error) = file.write_all(line) {
            // Half a line would poison the next one. If even this fails the file is opened anew.
            if file.set_len(self.bytes).is_err() {
                self.file = None;
            }
            return Err(error);
        }
        self.bytes += line.len() as u64;
        Ok(())
    }

    fn open(&mut self) -> io::Result<()> {
        if self.file.is_some() {
            return Ok(());
        }
        let file = OpenOptions::new().create(true).append(true).open(&self.settings.path)?;
        if !self.settings.append && !self.opened_before {
            file.set_len(0)?;
        }
        self.bytes = file.metadata()?.len();
        self.opened_before = true;
        self.file = Some(file);
        Ok(())
    }

    /// Moves the full file aside and starts an empty one under the old name.
    fn rotate(&mut self, rotation: Rotation, now: SystemTime) -> io::Result<()> {
        let path = &self.settings.path;
        let mut aside = rotated_name(path, now);
        // Two rotations within one millisecond must not overwrite each other.
        let mut moment = now;
        while aside.exists() {
            moment += Duration::from_millis(1);
            aside = rotated_name(path, moment);
        }
        fs::rename(path, &aside)?;
        self.file = None;
        self.open()?;
        if let Err(error) = prune(&self.settings.path, rotation, now) {
            // Old files cost disk space, not data: say so and go on.
            let path = self.settings.path.display().to_string();
            tracing::warn!(path, %error, "Rotated files could not be removed.");
        }
        Ok(())
    }
}

/// Removes rotated files beyond the number and the age that `rotation` allows.
fn prune(path: &Path, rotation: Rotation, now: SystemTime) -> io::Result<()> {
    let (stem, extension) = stem_and_extension(path);
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut rotated = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let stamp = name.strip_prefix(&format!("{stem}-")).and_then(|s| s.strip_suffix(&extension));
        if stamp.is_some_and(is_stamp) {
            rotated.push(name);
        }
    }
    // The stamp sorts as time does: newest first.
    rotated.sort_unstable_by(|a, b| b.cmp(a));
    let oldest = rotation.days_max.map(|days| {
        let age = Duration::from_secs(u64::from(days) * 86_400);
        format!("{stem}-{}", stamp(now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH)))
    });
    for (index, name) in rotated.iter().enumerate() {
        let too_many = rotation.backups_max > 0 && index >= rotation.backups_max as usize;
        let too_old = oldest.as_ref().is_some_and(|oldest| name < oldest);
        if too_many || too_old {
            fs::remove_file(folder.join(name))?;
        }
    }
    Ok(())
}

/// `traces.json` becomes `traces-2026-08-21T10-20-30.123.json`, in UTC, as lumberjack names them.
fn rotated_name(path: &Path, now: SystemTime) -> PathBuf {
    let (stem, extension) = stem_and_extension(path);
    path.with_file_name(format!("{stem}-{}{extension}", stamp(now)))
}

/// The name up to its last dot, and the rest with the dot.
fn stem_and_extension(path: &Path) -> (String, String) {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let extension = path.extension().map(|extension| format!(".{}", extension.to_string_lossy()));
    (stem, extension.unwrap_or_default())
}

fn stamp(now: SystemTime) -> String {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (seconds, millis) = (since.as_secs(), since.subsec_millis());
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}-{minute:02}-{second:02}.{millis:03}")
}

fn is_stamp(text: &str) -> bool {
    let shape = "dddd-dd-ddTdd-dd-dd.ddd";
    text.len() == shape.len()
        && text.bytes().zip(shape.bytes()).all(|(byte, shape)| match shape {
            b'd' => byte.is_ascii_digit(),
            _ => byte == shape,
        })
}

/// The date of a day since 1970-01-01 in the Gregorian calendar, counted in eras of 400 years
/// that begin on a 1 March, so that leap days come last.
fn civil(days_since_1970: u64) -> (u64, u64, u64) {
    let days = days_since_1970 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let leaps = day_of_era / 1460 + day_of_era / 146_096 - day_of_era / 36_524;
    let year_of_era = (day_of_era - leaps) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (400 * era + year_of_era + u64::from(month <= 2), month, day)
}
