"""A detector of torchvision: a list of pictures in, boxes out. Its weights are random: it shows how, not how good."""

import torch
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import mobilenet_backbone

import tuckertree as tt

torch.manual_seed(0)
backbone = mobilenet_backbone(backbone_name="mobilenet_v3_small", weights=None, fpn=True)
anchors = AnchorGenerator(tuple((size, 2 * size) for size in (16, 32, 64)), ((0.5, 1.0, 2.0),) * 3)
detector = RetinaNet(backbone, num_classes=5, anchor_generator=anchors, min_size=96, max_size=96).eval()
pictures = [torch.rand(3, 96, 96), torch.rand(3, 96, 96)]

# The list is the detector's one argument. The heads make the numbers: leave their last layers as they are.
result = tt.compress(
    detector, (pictures,), tt.Budget(macs=0.6), exclude=("head.*.cls_logits", "head.*.bbox_reg")
)
print(result)
with torch.no_grad():
    for found in result.model.eval()(pictures):
        print({name: tuple(values.shape) for name, values in found.items()})
