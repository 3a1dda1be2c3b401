//! Files that are read again when they change.

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf, time::Duration};

/// How often files are looked at.
pub const LOOK: Duration = Duration::from_secs(1);

/// What changes with a file: when it was written and changed, its length, and which one it is.
type Stamps = Vec<Option<[i64; 6]>>;

/// Files that belong together.
pub struct Watched {
    files: Vec<PathBuf>,
    /// As they were when they were read last, well or not.
    read: Stamps,
    /// As they were looked at last.
    seen: Stamps,
}

impl Watched {
    /// These, which are about to be read.
    pub fn new(files: Vec<PathBuf>) -> Watched {
        let stamps = stamps(&files);
        Watched { files, read: stamps.clone(), seen: stamps }
    }

    /// Whether it is time to read them: they have changed, or somebody has asked for it. Ones that change just now are left to
    /// finish first: a certificate and its key are two files.
    pub fn are_due(&mut self, asked: bool) -> bool {
        let stamps = stamps(&self.files);
        let are_settled = self.seen == stamps;
        self.seen.clone_from(&stamps);
        let are_due = asked || self.read != stamps && are_settled;
        if are_due {
            self.read = stamps;
        }
        are_due
    }
}

fn stamps(files: &[PathBuf]) -> Stamps {
    let stamp = |file: &PathBuf| {
        let found = fs::metadata(file).ok()?;
        let (length, inode) = (found.size() as i64, found.ino() as i64);
        Some([found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec(), length, inode])
    };
    files.iter().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed_is_due_once_it_has_settled() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        fs::write(&file, "1").unwrap();
        let mut watched = Watched::new(vec![file.clone()]);
        assert!(!watched.are_due(false) && watched.are_due(true));
        fs::write(&file, "12").unwrap();
        assert_eq!([(); 3].map(|()| watched.are_due(false)), [false, true, false]);
        fs::remove_file(&file).unwrap();
        assert_eq!([(); 3].map(|()| watched.are_due(false)), [false, true, false]);
    }
}
