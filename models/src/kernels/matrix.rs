//! Row-major matrices with any distance between rows, as the kernels see them.

use std::marker::PhantomData;

use ndarray::{ArrayView2, ArrayViewMut2};

/// A matrix to read. Rows may overlap or repeat (a broadcast row has stride 0).
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub(super) pointer: *const f32,
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Distance between the starts of two rows, in numbers.
    pub(super) stride: usize,
    view: PhantomData<&'a [f32]>,
}

/// A matrix to write: rows do not overlap.
pub(super) struct MatrixMut<'a> {
    pub(super) pointer: *mut f32,
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Distance between the starts of two rows, in numbers.
    pub(super) stride: usize,
    view: PhantomData<&'a mut [f32]>,
}

impl<'a> Matrix<'a> {
    /// Sees a view.
    ///
    /// # Panics
    /// When the rows of the view are not contiguous.
    pub(super) fn new(view: ArrayView2<'a, f32>) -> Self {
        let (rows, columns) = view.dim();
        let stride = stride((rows, columns), view.strides());
        Self { pointer: view.as_ptr(), rows, columns, stride, view: PhantomData }
    }

    /// Row `i`.
    #[inline(always)]
    pub(super) fn row(&self, i: usize) -> &'a [f32] {
        assert!(i < self.rows);
        // SAFETY: the view this was made of owns row `i`, whose numbers are contiguous.
        unsafe { std::slice::from_raw_parts(self.pointer.add(i * self.stride), self.columns) }
    }

    /// The only column as a slice, where it is contiguous.
    pub(super) fn as_column(&self) -> Option<&'a [f32]> {
        let contiguous = self.columns == 1 && (self.stride == 1 || self.rows <= 1);
        // SAFETY: the view this was made of owns one number a row, and they lie side by side.
        contiguous.then(|| unsafe { std::slice::from_raw_parts(self.pointer, self.rows) })
    }

    /// The only column as the only row, where it is contiguous.
    pub(super) fn column_as_row(self) -> Option<Self> {
        let row = Self { rows: 1, columns: self.rows, stride: self.rows, ..self };
        self.as_column().map(|_| row)
    }
}

impl<'a> MatrixMut<'a> {
    /// Sees a view.
    ///
    /// # Panics
    /// When the rows of the view are not contiguous.
    pub(super) fn new(mut view: ArrayViewMut2<'a, f32>) -> Self {
        let (rows, columns) = view.dim();
        let stride = stride((rows, columns), view.strides());
        Self { pointer: view.as_mut_ptr(), rows, columns, stride, view: PhantomData }
    }

    /// Lays `rows` of `columns` numbers into memory, `stride` apart.
    ///
    /// # Panics
    /// When they do not fit.
    pub(super) fn over(memory: &'a mut [f32], rows: usize, columns: usize, stride: usize) -> Self {
        assert!(columns <= stride && rows * stride <= memory.len(), "a matrix and its memory");
        Self { pointer: memory.as_mut_ptr(), rows, columns, stride, view: PhantomData }
    }

    /// Row `i`.
    #[inline(always)]
    pub(super) fn row(&mut self, i: usize) -> &mut [f32] {
        assert!(i < self.rows);
        // SAFETY: the view this was made of owns row `i`, whose numbers are contiguous.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(i * self.stride), self.columns) }
    }

    /// The only column as the only row, where it is contiguous.
    pub(super) fn column_as_row(&mut self) -> Option<MatrixMut<'_>> {
        let contiguous = self.columns == 1 && (self.stride == 1 || self.rows <= 1);
        let row = MatrixMut { rows: 1, columns: self.rows, stride: self.rows, ..*self };
        contiguous.then_some(row)
    }
}

fn stride((rows, columns): (usize, usize), strides: &[isize]) -> usize {
    assert!(
        rows == 0 || columns <= 1 || strides[1] == 1,
        "rows must be contiguous, found columns {} apart",
        strides[1]
    );
    if rows <= 1 {
        return columns;
    }
    usize::try_from(strides[0]).expect("rows in ascending order")
}
