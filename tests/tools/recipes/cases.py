"""A recipe that runs on what is packaged."""

TEXT = """\
name: Demo
source: {work: none, table: ours, row: demo}
network: demo
data: {kind: cifar10, train_images: 256, test_images: 1000}
compression:
  energy_for: {params: 1.5x}
training: {epochs: 1, batch_size: 64, lr: 1e-3, validation: 0}
paper: {params: 1.49, macs: 1.5, top1_change: -0.5}
rivals:
  - {name: Other, params: 1.4, top1_change: -1, note: a note}
"""
