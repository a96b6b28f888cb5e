//! How a run goes to the queue and its results come back. It refuses to let more than a [`Line`](super::super::course::Line) of work wait there.

use super::super::course::Course;
use super::super::device::{Fault, Feed, Output, Place};
use super::super::kernel::print::WORKGROUP;
use super::super::lower::Span;
use super::super::stored::{loaded, stored};
use super::{Memory, OpenClDevice, fault};
use crate::processor::Storage;
use opencl3::event::Event;
use opencl3::kernel::Kernel;
use opencl3::memory::Buffer;
use opencl3::types::{CL_BLOCKING, CL_NON_BLOCKING};
use std::ptr;

impl OpenClDevice {
    /// Waits until what went out is not too much, with what ends with `last` and takes as long as a portion.
    pub(super) fn follow(&self, course: &Course<'_>, last: Option<Event>) -> Result<(), Fault> {
        self.queue.ask().flush().map_err(fault)?;
        let before = last.and_then(|last| self.line.sent(course.took(), last));
        before.map_or(Ok(()), |before| before.wait()).map_err(fault)
    }

    /// Hands the steps to the queue, portion by portion. Gives the last one of the last portion, if there is any.
    ///
    /// # Safety
    /// Grids are whole workgroups; the buffers of the kernels live until the queue has been finished.
    unsafe fn launch(
        &self,
        kernels: &[(Kernel, usize)],
        course: &mut Course<'_>,
    ) -> Result<Option<Event>, Fault> {
        let local = [WORKGROUP as usize];
        let mut last: Option<Event> = None;
        while let Some(steps) = course.next_portion() {
            for (kernel, total) in &kernels[steps] {
                let (global, local) = (std::slice::from_ref(total).as_ptr(), local.as_ptr());
                let (kernel, queue) = (kernel.get(), &self.queue);
                // SAFETY: the caller's promise.
                let queued = unsafe {
                    queue.ask().enqueue_nd_range_kernel(kernel, 1, ptr::null(), global, local, &[])
                };
                last = Some(queued.map_err(fault)?);
            }
            if !course.all_begun() {
                self.follow(course, last.take())?;
            }
        }
        course.end().map(|()| last)
    }

    /// Hands all commands of a run to the queue, in order. Gives the last one, if there is any.
    ///
    /// # Safety
    /// Spans lie inside the arena by the plan, and grids are whole workgroups; what is read from and written to on the host must live until
    /// the last command has ended. Where `early` is true nothing is written there, and what is read has been read when this returns.
    pub(super) unsafe fn enqueue(
        &self,
        memory: &mut Memory,
        inputs: &mut dyn Iterator<Item = (Span, Feed<'_, Buffer<u8>>)>,
        outputs: &mut [Output<Buffer<u8>>],
        early: bool,
        course: &mut Course<'_>,
    ) -> Result<Option<Event>, Fault> {
        let Memory { arena, room, kernels } = memory;
        let arena = &mut *arena.turn();
        let (queue, storage) = (&self.queue, self.target.storage);
        let at = |span: &Span| storage.bytes() * span.at;
        let size = |span: &Span| storage.bytes() * span.floats;
        // What is converted is in the same room each time.
        let upload = if storage == Storage::F32 && !early { CL_NON_BLOCKING } else { CL_BLOCKING };
        // SAFETY: the caller's promise.
        unsafe {
            let mut last = None;
            for (span, feed) in inputs {
                let queued = match feed {
                    Feed::Host(data) => {
                        let bytes = &stored(storage, data, room)[..size(&span)];
                        queue.ask().enqueue_write_buffer(arena, upload, at(&span), bytes, &[])
                    }
                    Feed::There(from) => {
                        queue.ask().enqueue_copy_buffer(from, arena, 0, at(&span), size(&span), &[])
                    }
                };
                last = Some(queued.map_err(fault)?);
            }
            last = self.launch(kernels, course)?.or(last);
            for (span, place) in outputs {
                last = Some(match place {
                    Place::Home(data) => {
                        data.resize(span.floats, 0.0);
                        self.bring(arena, at(span), data, room)?
                    }
                    Place::There(to) => queue
                        .ask()
                        .enqueue_copy_buffer(arena, to, at(span), 0, size(span), &[])
                        .map_err(fault)?,
                });
            }
            Ok(last)
        }
    }

    /// Reads so many numbers from a byte of `buffer` on, and waits for them where they must be converted.
    ///
    /// # Safety
    /// They lie inside the buffer; `to` lives until the queue has been finished.
    pub(super) unsafe fn bring(
        &self,
        buffer: &Buffer<u8>,
        at: usize,
        to: &mut [f32],
        room: &mut Vec<u16>,
    ) -> Result<Event, Fault> {
        let (queue, storage) = (&self.queue, self.target.storage);
        // SAFETY: the caller's promise; what is read into `room` is waited for.
        unsafe {
            match storage {
                Storage::F32 => {
                    let bytes = bytemuck::cast_slice_mut(to);
                    queue.ask().enqueue_read_buffer(buffer, CL_NON_BLOCKING, at, bytes, &[]).map_err(fault)
                }
                Storage::F16 => {
                    room.resize(to.len(), 0);
                    let bytes = bytemuck::cast_slice_mut(room);
                    let read = queue
                        .ask()
                        .enqueue_read_buffer(buffer, CL_BLOCKING, at, bytes, &[])
                        .map_err(fault)?;
                    loaded(storage, bytes, to);
                    Ok(read)
                }
            }
        }
    }
}
