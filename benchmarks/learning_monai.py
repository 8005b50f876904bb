"""MONAI as a contender of `bench_learning.py`: its DynUNet, trained as its tutorials do.

From the tutorial `modules/dynunet_pipeline`: the network with deep supervision, each head's loss
weighing half of the one above, DiceCELoss, zoom, noise, blur and scaling of intensities, the
learning rate falling as (1 - t)^0.9. From `3d_segmentation/unetr_btcv_segmentation_3d`: HU -175 to
250 to 0..1, AdamW with a weight decay of 1e-5, and shifts of intensities. Other than there:

* an initial learning rate of 1e-3 by default. The BTCV tutorial's 1e-4 is for 25,000 steps, and the
DynUNet tutorial's SGD with a momentum of 0.99 is nnU-Net's, which is a contender itself.
* RandCropByLabelClassesd instead of RandCropByPosNegLabeld: all classes equally likely, as MONAI
offers for many organs; three cases per step, each from a cache with its indices, as its guide to
fast training advises.
* No flips: an abdomen is not its mirror image.

PyTorch has its best memory format on a CPU, channels last.

Runs in the Python that has MONAI: `python learning_monai.py TASK`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from learning_task import BATCH, FILTERS, IMAGES, LABELS, ORGANS, PATCH, Task
from monai import transforms
from monai.data import CacheDataset, DataLoader
from monai.inferers import sliding_window_inference
from monai.losses import DiceCELoss
from monai.networks.nets import DynUNet
from monai.utils import set_determinism

ROI = PATCH[::-1]  # MONAI's arrays are (x, y, z)
CLASSES = len(ORGANS) + 1
_WORKERS = 1  # process that makes patches: the network waited for 0.01 s of a step, with none 0.03
_BOTH = ("image", "label")


def make_network() -> Any:
    """Makes a DynUNet of the size that all contenders have."""
    levels = len(FILTERS)
    network = DynUNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=CLASSES,
        kernel_size=[3] * levels,
        strides=[1] + [2] * (levels - 1),
        upsample_kernel_size=[2] * (levels - 1),
        filters=FILTERS,
        deep_supervision=True,
        deep_supr_num=levels - 2,
    )
    return network.to(memory_format=torch.channels_last_3d)


def read_image() -> list[Any]:
    """Makes the transforms that read and scale an image."""
    return [
        transforms.LoadImaged("image"),
        transforms.EnsureChannelFirstd("image"),
        transforms.ScaleIntensityRanged("image", -175, 250, 0, 1, clip=True),
    ]


def make_loader(task: Task) -> Any:
    """Makes batches of patches, as many as the run has steps."""
    files = [
        {
            key: task.data / folder / f"{case_id}.nii.gz"
            for key, folder in (("image", IMAGES), ("label", LABELS))
        }
        for case_id in task.cases("train")
    ]
    cached = [
        *read_image(),
        transforms.LoadImaged("label"),
        transforms.EnsureChannelFirstd("label"),
        transforms.ClassesToIndicesd("label", num_classes=CLASSES),
    ]
    drawn = [
        transforms.RandCropByLabelClassesd(
            keys=_BOTH,
            label_key="label",
            spatial_size=ROI,
            num_classes=CLASSES,
            indices_key="label_cls_indices",
            warn=False,
        ),
        transforms.SelectItemsd(_BOTH),
        transforms.RandZoomd(
            _BOTH,
            min_zoom=0.9,
            max_zoom=1.2,
            mode=("trilinear", "nearest"),
            align_corners=(True, None),
            prob=0.15,
        ),
        transforms.RandGaussianNoised("image", std=0.01, prob=0.15),
        transforms.RandGaussianSmoothd(
            "image", sigma_x=(0.5, 1.15), sigma_y=(0.5, 1.15), sigma_z=(0.5, 1.15), prob=0.15
        ),
        transforms.RandScaleIntensityd("image", factors=0.3, prob=0.15),
        transforms.RandShiftIntensityd("image", offsets=0.1, prob=0.5),
        transforms.ToTensord(_BOTH, track_meta=False),
    ]
    cases = CacheDataset(files, transforms.Compose([*cached, *drawn]), progress=False)
    order = torch.utils.data.RandomSampler(cases, replacement=True, num_samples=task.steps * BATCH)
    return DataLoader(cases, batch_size=BATCH, sampler=order, num_workers=_WORKERS)


def train(task: Task, network: Any) -> tuple[float, dict[int, Any]]:
    """Trains; gives the seconds that it took, and the weights at each checkpoint."""
    rate = task.options["learning_rate"]
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-5)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: (1 - step / task.steps) ** 0.9
    )
    loss_of = DiceCELoss(to_onehot_y=True, softmax=True)
    batches = iter(make_loader(task))
    kept, seconds = {}, 0.0
    network.train()
    for step in range(1, task.steps + 1):
        started = time.perf_counter()
        batch = next(batches)
        optimizer.zero_grad()
        images = batch["image"].contiguous(memory_format=torch.channels_last_3d)
        heads = torch.unbind(network(images), dim=1)
        losses = [0.5**level * loss_of(head, batch["label"]) for level, head in enumerate(heads)]
        sum(losses).backward()
        optimizer.step()
        schedule.step()
        seconds += time.perf_counter() - started
        if step in task.checkpoints:
            kept[step] = {name: value.clone() for name, value in network.state_dict().items()}
    return seconds, kept


def predict(task: Task, network: Any, step: int) -> None:
    """Segments the unseen images."""
    network.eval()
    task.masks(step).mkdir(exist_ok=True)
    read = transforms.Compose(read_image())
    for case_id in task.cases("test"):
        path = task.data / IMAGES / f"{case_id}.nii.gz"
        image = read({"image": path})["image"].as_tensor()[None]
        with torch.inference_mode():
            logits = sliding_window_inference(
                image, ROI, sw_batch_size=4, predictor=network, overlap=0.5, mode="gaussian"
            )
        mask = logits.argmax(dim=1)[0].numpy().astype(np.uint8)
        grid = nib.Nifti1Image.from_filename(path).affine
        nib.save(nib.Nifti1Image(mask, grid), task.masks(step) / path.name)


def main() -> None:
    task = Task.from_json(Path(sys.argv[1]).read_text())
    set_determinism(task.seed)
    torch.use_deterministic_algorithms(False)  # seeds alone: nobody trains more slowly than need be
    network = make_network()
    seconds, kept = train(task, network)
    for step, weights in kept.items():
        network.load_state_dict(weights)
        predict(task, network, step)
    parameters = sum(weight.numel() for weight in network.parameters())
    task.finish(seconds=seconds, parameters=parameters)


if __name__ == "__main__":
    main()
