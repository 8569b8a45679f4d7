//! Files that hold what clients sent: their owner's alone, and in nobody's place unless
//! asked for.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Why there is no such file.
#[derive(Debug)]
pub(crate) enum Refused {
    /// There is one of that name, not to be replaced.
    Exists,
    /// What is to be replaced is a directory, device, link or pipe.
    NotRegular,
    /// It cannot be created.
    Failed(io::Error),
}

/// Creates a file, readable by its owner only.
///
/// With `force` a regular file of that name is replaced by a new one, so that neither its
/// mode nor its other names carry over.
pub(crate) fn create(path: &Path, force: bool) -> Result<File, Refused> {
    if force {
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_file() => fs::remove_file(path).map_err(Refused::Failed)?,
            Ok(_) => return Err(Refused::NotRegular),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Refused::Failed(error)),
        }
    }
    let mut options = OpenOptions::new();
    let created = options.write(true).create_new(true).mode(0o600).open(path);
    created.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Refused::Exists,
        _ => Refused::Failed(error),
    })
}
