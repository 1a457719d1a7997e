//! Nothing here: the tests of the whole stand in `it/`.
