//! The identity of a device, which lives on the device itself: an emptied or replaced disk is
//! another device, whatever the folder is called.
//!
//! ```text
//! device = "SKDEV1\0\0" 8 ‖ device id 16 ‖ first 8 bytes of BLAKE3 of the 24 before
//! ```

use env::{Disk, DiskExt, Env};
use model::{DeviceId, Error, Hash, Result};
use std::path::Path;

const MAGIC: &[u8; 8] = b"SKDEV1\0\0";

/// Encodes the file.
fn encode(device: &DeviceId) -> Vec<u8> {
    let mut bytes = [&MAGIC[..], &device.0].concat();
    let check = Hash::of(&bytes);
    bytes.extend_from_slice(&check.0[..8]);
    bytes
}

/// Decodes the file; `None` for anything but a whole one.
pub(crate) fn decode(bytes: &[u8]) -> Option<DeviceId> {
    let device = DeviceId::from_slice(bytes.get(8..24)?)?;
    (encode(&device) == bytes).then_some(device)
}

/// The id of the device in a folder; a new one where there is neither an id nor a log.
///
/// `Corrupt`: there is a log but no id, or the id is damaged. It is not replaced by a new one: that
/// would orphan all shards in the log.
pub(crate) fn load_or_create(env: &Env, dir: &Path, log: &Path) -> Result<DeviceId> {
    let disk: &dyn Disk = env.disk.as_ref();
    let failed = |e: std::io::Error| Error::unavailable(format!("{}: {e}", dir.display()));
    let path = dir.join("device");
    if disk.try_exists(&path).map_err(failed)? {
        let bytes = disk.read_settled(&path).map_err(failed)?;
        return decode(&bytes).ok_or_else(|| {
            Error::corrupt(format!("{} is damaged: this device cannot tell who it is", path.display()))
                .hint("put the file back from a copy, or empty the folder and join it as a new device")
        });
    }
    if disk.try_exists(log).map_err(failed)? && !disk.read_dir(log).map_err(failed)?.is_empty() {
        return Err(Error::corrupt(format!("{} is missing, but there are shards beside it", path.display()))
            .hint("put the file back from a copy, or empty the folder and join it as a new device"));
    }
    let device = DeviceId(env.random());
    disk.create_dir_all(dir).map_err(failed)?;
    disk.replace(&path, &encode(&device)).map_err(failed)?;
    Ok(device)
}
