//! Files put together of others without their contents: the records of one after those of another, under the
//! same keys. Nothing is sealed anew but the manifest that comes of it.

use crate::content::cut::Cut;
use crate::content::manifest::{ChunkRecord, Manifest};
use crate::keys::ContentKey;
use model::{Error, ObjectId, Result};
use std::collections::BTreeMap;
use subtle::ConstantTimeEq;

/// Takes files in their order and makes one of them.
#[derive(Default)]
pub struct Joiner {
    /// The objects that records name, each once.
    objects: Vec<(ObjectId, ContentKey)>,
    places: BTreeMap<ObjectId, u32>,
    cuts: Vec<Cut>,
    records: Vec<ChunkRecord>,
}

impl Joiner {
    /// The next file: how it is cut, all its records of level 0, and the objects that these name. `Corrupt`
    /// where they do not fit each other, or one object comes with two keys.
    pub fn add(&mut self, cut: &Cut, objects: &[(ObjectId, ContentKey)], records: Vec<ChunkRecord>) -> Result<()> {
        if records.len() as u64 != cut.chunks() {
            return Err(Error::corrupt("a file has not as many chunks as its manifest says"));
        }
        for record in records {
            let (id, key) = objects.get(record.object as usize).ok_or_else(|| Error::corrupt("a manifest names no such object"))?;
            // An object that held nothing but the index of one file is not named any more.
            let object = self.place(*id, key)?;
            self.records.push(ChunkRecord { object, ..record });
        }
        self.cuts.push(cut.clone());
        Ok(())
    }

    fn place(&mut self, id: ObjectId, key: &ContentKey) -> Result<u32> {
        if let Some(place) = self.places.get(&id) {
            let known = self.objects.get(*place as usize).map(|(_, known)| known);
            let same = known.is_some_and(|known| bool::from(known.bytes().ct_eq(key.bytes())));
            return if same { Ok(*place) } else { Err(Error::corrupt("one object comes with two keys")) };
        }
        let place = u32::try_from(self.objects.len()).map_err(|_| Error::invalid("too many objects"))?;
        self.objects.push((id, key.share()));
        self.places.insert(id, place);
        Ok(place)
    }

    /// All of them as one file, its records at level 0. `None` where its parts are too many runs
    /// ([`Cut::of_runs`]).
    pub fn finish(self, mtime_ns: i64) -> Option<Manifest> {
        let cut = Cut::join(&self.cuts)?;
        Some(Manifest { cut, mtime_ns, objects: self.objects, level: 0, records: self.records })
    }
}
