//! How the steps of a run go to the device and its results come back. It refuses to wait for ever.

use super::super::adapter::SLOT;
use super::super::course::Course;
use super::super::device::Fault;
use super::super::waiting::{Mapped, PATIENCE};
use super::{Segment, WgpuDevice};
use std::sync::Arc;

impl WgpuDevice {
    /// Waits for a submission, or for all of them.
    pub(super) fn wait(&self, index: Option<wgpu::SubmissionIndex>) -> Result<(), Fault> {
        let all = index.is_none();
        let poll = wgpu::PollType::Wait { submission_index: index, timeout: Some(PATIENCE) };
        let waited = self.device.poll(poll);
        waited.map_err(|e| Fault::Died(format!("waiting for the device: {e}")))?;
        if all {
            self.line.ended();
        }
        Ok(())
    }

    /// Submits a portion, and waits until what went out is not too much.
    pub(super) fn send(&self, encoder: wgpu::CommandEncoder, course: &Course<'_>) -> Result<(), Fault> {
        let index = self.queue.submit([encoder.finish()]);
        match self.line.sent(course.took(), index) {
            Some(before) => self.wait(Some(before)),
            None => Ok(()),
        }
    }

    /// Records the steps, and submits every portion but the last, which goes out with the outputs.
    pub(super) fn record(
        &self,
        segment: &Segment,
        groups: &[wgpu::BindGroup],
        encoder: &mut wgpu::CommandEncoder,
        course: &mut Course<'_>,
    ) -> Result<(), Fault> {
        while let Some(steps) = course.next_portion() {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            for i in steps {
                let step = &segment.steps[i];
                pass.set_pipeline(&step.pipeline);
                pass.set_bind_group(0, &groups[step.page], &[(i as u64 * SLOT) as u32]);
                pass.dispatch_workgroups(step.grid.0, step.grid.1, 1);
            }
            drop(pass);
            if !course.all_begun() {
                let full =
                    std::mem::replace(encoder, self.device.create_command_encoder(&Default::default()));
                self.send(full, course)?;
            }
        }
        let end = course.end();
        if end.is_err() {
            self.wait(None)?;
        }
        end
    }

    /// Submits, waits, and gives the first `bytes` of `readback` to `with`.
    pub(super) fn submit_and_read(
        &self,
        encoder: wgpu::CommandEncoder,
        readback: &wgpu::Buffer,
        mapped: &Arc<Mapped>,
        bytes: u64,
        with: impl FnOnce(&[u8]),
    ) -> Result<(), Fault> {
        let index = self.queue.submit([encoder.finish()]);
        let telling = mapped.clone();
        readback.map_async(wgpu::MapMode::Read, 0..bytes, move |result| telling.tell(result));
        self.wait(Some(index))?;
        mapped.wait()?;
        self.line.ended();
        let view = readback.get_mapped_range(0..bytes);
        let view = view.map_err(|e| Fault::Failed(format!("reading results back: {e}")))?;
        with(&view);
        drop(view);
        readback.unmap();
        Ok(())
    }
}
