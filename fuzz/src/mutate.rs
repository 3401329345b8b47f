//! Inputs from a seed: now and then random bytes, mostly valid ones with a few changes of the kinds
//! that break decoders: bits, lengths, cuts, repeats, and pieces of other inputs.

/// Values that decoders like to get wrong: heads of CBOR items with huge or odd lengths,
/// indefinite lengths, and numbers at the edges of their types.
const NASTY: [&[u8]; 14] = [
    &[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0xbb, 0, 0, 0, 1, 0, 0, 0, 0],
    &[0x9a, 0x7f, 0xff, 0xff, 0xff],
    &[0x9f],
    &[0x5f],
    &[0xbf],
    &[0xff],
    &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x1a, 0xff, 0xff, 0xff, 0xff],
    &[0x3b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0xf6],
    &[0x18, 0x01],
    &[0xc1, 0x00],
];

/// Makes inputs; the same seed and samples make the same ones.
pub struct Mutator {
    state: u64,
    samples: Vec<Vec<u8>>,
}

impl Mutator {
    /// `samples` are valid inputs, if any are at hand.
    pub fn new(seed: u64, samples: Vec<Vec<u8>>) -> Self {
        Mutator { state: seed, samples }
    }

    /// The next input.
    pub fn input(&mut self) -> Vec<u8> {
        let Some(mut bytes) = self.sample().filter(|_| self.state & 0xf0 != 0) else {
            let len = self.below(300);
            return (0..len).map(|_| self.next() as u8).collect();
        };
        for _ in 0..self.below(6) {
            self.change(&mut bytes);
        }
        bytes
    }

    fn sample(&mut self) -> Option<Vec<u8>> {
        let i = self.below(self.samples.len());
        self.samples.get(i).cloned()
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len());
        let end = at + self.below(bytes.len() - at + 1).min(64);
        match self.below(9) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
            1 if !bytes.is_empty() => bytes[at] = self.next() as u8,
            // One more or less: lengths and counts.
            2 if !bytes.is_empty() => bytes[at] = bytes[at].wrapping_add(if self.below(2) == 0 { 1 } else { 255 }),
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..end)),
            5 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            6 => {
                let nasty = NASTY[self.below(NASTY.len())];
                bytes.splice(at..at, nasty.iter().copied());
            }
            7 => {
                let nasty = NASTY[self.below(NASTY.len())];
                let end = (at + nasty.len()).min(bytes.len());
                bytes.splice(at..end, nasty.iter().copied());
            }
            _ => {
                let other = self.sample().unwrap_or_default();
                let from = self.below(other.len());
                bytes.splice(at.., other[from..].iter().copied());
            }
        }
    }

    /// A number below `n`; 0 for 0.
    fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { (self.next() % n as u64) as usize }
    }

    /// SplitMix64 (Steele, Lea, Flood, 2014).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
