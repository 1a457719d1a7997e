//! Examples become parameters and scores. Pure arithmetic.
