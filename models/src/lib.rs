//! Examples become parameters and scores. Pure arithmetic.

#[cfg(test)]
mod gradcheck;
