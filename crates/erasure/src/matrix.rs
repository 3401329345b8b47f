//! The coding matrix, and its inverse for any k shards at hand.
//!
//! Rows are those of Backblaze's JavaReedSolomon: the Vandermonde matrix `V[r][c] = r^c` over
//! GF(2^8) with polynomial 0x11d, times the inverse of its top k rows. Any k rows of it are
//! independent, so any k shards determine the data. Field arithmetic (SIMD where the processor has
//! it) comes from `rustfs_erasure_codec::galois_8`; inverting k × k by elimination costs
//! microseconds at most, so nothing is cached.

use rustfs_erasure_codec::galois_8 as gf;

/// A dense matrix over GF(2^8), row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Matrix {
    columns: usize,
    cells: Vec<u8>,
}

impl Matrix {
    /// The `n × k` coding matrix, identity on top. `None` unless `1 ≤ k ≤ n ≤ 256`.
    pub(crate) fn systematic(k: usize, n: usize) -> Option<Matrix> {
        if k == 0 || n < k || n > 256 {
            return None;
        }
        let vandermonde = Matrix { columns: k, cells: (0..n).flat_map(|r| (0..k).map(move |c| gf::exp(r as u8, c))).collect() };
        let top: Vec<&[u8]> = vandermonde.cells.chunks_exact(k).take(k).collect();
        let inverse = Matrix::inverse_of(&top)?;
        let cells = vandermonde.cells.chunks_exact(k).flat_map(|row| inverse.apply(row)).collect();
        Some(Matrix { columns: k, cells })
    }

    /// Row `i`; empty when there is none.
    pub(crate) fn row(&self, i: usize) -> &[u8] {
        self.cells.chunks_exact(self.columns).nth(i).unwrap_or(&[])
    }

    /// The row vector `row × self`.
    pub(crate) fn apply(&self, row: &[u8]) -> Vec<u8> {
        let mut out = vec![0u8; self.columns];
        for (factor, cells) in row.iter().zip(self.cells.chunks_exact(self.columns)) {
            gf::mul_slice_xor(*factor, cells, &mut out);
        }
        out
    }

    /// The inverse of a square matrix given by its rows, by Gauss-Jordan elimination.
    /// `None` when it has none.
    pub(crate) fn inverse_of(rows: &[&[u8]]) -> Option<Matrix> {
        let k = rows.len();
        // Each row carries the identity beside it; what turns the left half into the identity
        // turns the right half into the inverse.
        let mut work: Vec<Vec<u8>> =
            rows.iter().enumerate().map(|(i, row)| row.iter().copied().chain((0..k).map(|j| u8::from(i == j))).collect()).collect();
        if work.iter().any(|row| row.len() != 2 * k) {
            return None;
        }
        for column in 0..k {
            let pivot = (column..k).find(|&r| work[r][column] != 0)?;
            work.swap(column, pivot);
            let mut scaled = vec![0u8; 2 * k];
            gf::mul_slice(gf::div(1, work[column][column]), &work[column], &mut scaled);
            for (r, row) in work.iter_mut().enumerate() {
                let factor = row[column];
                if r != column && factor != 0 {
                    gf::mul_slice_xor(factor, &scaled, row);
                }
            }
            work[column] = scaled;
        }
        Some(Matrix { columns: k, cells: work.iter().flat_map(|row| row[k..].iter().copied()).collect() })
    }
}

/// `out = Σ row[j] · inputs[j]`, byte by byte. All slices have the length of `out`.
pub(crate) fn combine<'a>(row: &[u8], inputs: impl Iterator<Item = &'a [u8]>, out: &mut [u8]) {
    let mut fresh = true;
    for (factor, input) in row.iter().zip(inputs) {
        if fresh {
            gf::mul_slice(*factor, input, out);
            fresh = false;
        } else if *factor != 0 {
            gf::mul_slice_xor(*factor, input, out);
        }
    }
}
