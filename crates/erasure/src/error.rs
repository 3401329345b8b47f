//! Why shards give no chunk.

/// What is wrong with a set of shards.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer than k shards: get more.
    #[error("only {have} shards of the {need} needed are at hand")]
    TooFew {
        /// Shards given.
        have: usize,
        /// The policy's k.
        need: usize,
    },
    /// These shards, by index, are not what the descriptor certifies: leave them out and try again.
    #[error("shards {0:?} are not what was written")]
    BadShards(Vec<u8>),
    /// Every shard is as certified, yet together they are not the certified chunk: whoever wrote
    /// the chunk made a false descriptor. No other choice of shards helps.
    #[error("the chunk's descriptor contradicts its shards")]
    Contradiction,
    /// The descriptor describes nothing possible, or a chunk of another policy.
    #[error("the chunk's descriptor is not possible here")]
    BadDescriptor,
    /// The call itself makes no sense: an index out of range or twice, lengths that differ.
    #[error("{0}")]
    BadCall(&'static str),
}

impl From<DecodeError> for model::Error {
    fn from(e: DecodeError) -> model::Error {
        let kind = match e {
            DecodeError::TooFew { .. } => model::Kind::Unavailable,
            DecodeError::BadShards(_) | DecodeError::Contradiction | DecodeError::BadDescriptor => model::Kind::Corrupt,
            DecodeError::BadCall(_) => model::Kind::Invalid,
        };
        model::Error::new(kind, e.to_string())
    }
}
