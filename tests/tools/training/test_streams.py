"""Training from a stream: all images, in each process its own, and on from where it stopped."""

import pytest
import torch
from torch import nn

from tests.tools.data.test_streams import cache, folder  # noqa: F401
from tests.tools.training.cases import same_weights, terminate
from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.tools.data import Preprocessing, open_training
from tuckertree.tools.training import Settings, train
from tuckertree.tools.training.streams import Share, StreamedImages

pytest.importorskip("lightning")
pytest.importorskip("datasets")


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 2))


def opened(folder):  # noqa: F811
    return open_training(f"hf:{folder}?streaming", Preprocessing((4, 4)))


def colours(batches):
    return [pixels[:, 0, 0, 0].tolist() for pixels, *_ in batches]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_batches_of_two_processes_are_all_images_and_a_resumed_epoch_has_the_rest(folder, workers):  # noqa: F811
    source = StreamedImages(opened(folder), "none", 0, 10)
    shares = [colours(source.loader(lambda r=r: Share(0, 0, 2, 5, r, 2), workers)) for r in range(2)]
    images = [image for share in shares for batch in share for image in batch]
    assert sorted(images) == [10 * shard + i for shard in range(4) for i in range(5)]
    rest = colours(source.loader(lambda: Share(0, 1, 2, 5, 1, 2), workers))
    assert rest == shares[1][1:]


def test_a_process_whose_shards_end_early_begins_anew(folder):  # noqa: F811
    (folder / "train-00003-of-00004.parquet").unlink()
    source = StreamedImages(opened(folder), "none", 0, 10)
    (first, second, third) = colours(source.loader(lambda: Share(0, 0, 3, 5, 0, 3), 1))
    assert first == second == third


def test_a_run_goes_on_exactly(folder, tmp_path, monkeypatch):  # noqa: F811
    from tuckertree.tools.training import module

    run = Settings(2, batch_size=4, validation=0.0, augment="flip-crop")
    whole = train(network(), opened(folder), run)
    assert whole.data.endswith("(train): 20 images, 0 for validation")
    plain, steps = module.loss_of, []

    def loss_of(*arguments):
        steps.append(1)
        if len(steps) == 7:  # of 5 in each epoch
            terminate()
        return plain(*arguments)

    monkeypatch.setattr(module, "loss_of", loss_of)
    with pytest.raises(KeyboardInterrupt):
        train(network(), opened(folder), run, output=tmp_path / "out")
    resumed = train(network(), opened(folder), run, output=tmp_path / "out", resume=True)
    assert same_weights(whole.model, resumed.model)
    assert whole.history == resumed.history


def test_a_label_that_the_network_has_no_output_for_is_refused(folder):  # noqa: F811
    source = StreamedImages(opened(folder), "none", 0, 1)
    batches = source.loader(lambda: Share(0, 0, 4, 5, 0, 1), 0)
    with pytest.raises(TuckertreeError, match=r"an image has the label 1, the network 1 outputs"):
        [source.prepare(batch, torch.device("cpu")) for batch in batches]


def test_no_part_of_a_stream_can_be_held_back(folder):  # noqa: F811
    with pytest.raises(UsageError, match="is a stream, of which no part can be taken: set validation to 0"):
        train(network(), opened(folder), Settings(1))
