"""Runs of the engine: what they give, how they go on, and what ends them."""

import signal
import warnings

import pytest
import torch
from torch import nn

import tuckertree
from tests.tools.training.cases import demo_images, same_weights, terminate, tiny_network
from tuckertree._base.checkpoints import read_checkpoint
from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.tools.data import ImageSet, Preprocessing
from tuckertree.tools.data.arrays import ArrayRecords
from tuckertree.tools.training import Settings, finetune, train
from tuckertree.tools.training.checkpoints import EPOCH, STEP

pytest.importorskip("lightning")


def settings(epochs=2, **more):
    return Settings(epochs, **{"batch_size": 16, "limit_train": 80, "validation": 0.2, **more})


@pytest.fixture
def after(monkeypatch):
    """Do something in a certain training step, counted over all epochs."""
    from tuckertree.tools.training import module

    plain = module.loss_of

    def install(step, action):
        seen = []

        def loss_of(*arguments):
            seen.append(1)
            loss = plain(*arguments)
            return action(loss) if len(seen) == step else loss

        monkeypatch.setattr(module, "loss_of", loss_of)

    yield install
    monkeypatch.setattr(module, "loss_of", plain)


def told_to_end(loss):
    terminate()
    return loss


def spoil(loss):
    return loss * float("nan")


def test_a_run_learns_and_says_how():
    network, images = tiny_network(), demo_images()
    state = torch.get_rng_state()
    outcome = train(network, images, settings(6, limit_train=None, lr=0.1))
    first, *_, last = outcome.history
    assert [row["epoch"] for row in outcome.history] == [1, 2, 3, 4, 5, 6]
    assert last["train_loss"] < first["train_loss"]
    assert last["train_top1"] > 20
    assert {"validation_loss", "validation_top1", "learning_rate"} <= last.keys()
    assert outcome.data == "demo (train): 205 images, 51 for validation"
    assert outcome.seconds > 0
    assert not outcome.model.training
    assert outcome.versions["torch"] == torch.__version__
    assert torch.equal(torch.get_rng_state(), state)


def test_the_model_given_is_not_changed_and_the_seed_decides():
    network = tiny_network()
    one, same, other = (train(network, demo_images(), settings(1, seed=seed)).model for seed in (0, 0, 1))
    assert same_weights(network, tiny_network())
    assert same_weights(one, same)
    assert not same_weights(one, other)


@pytest.mark.parametrize(
    "more",
    [{"ema": 0.9}, {"optimizer": "adamw", "lr": 1e-3, "augment": "cutout", "clip": 1.0}],
    ids=["sgd-ema", "adamw"],
)
def test_a_run_that_is_told_to_end_goes_on_exactly(tmp_path, after, more):
    teacher = tiny_network()
    run = settings(3, **more)
    whole = finetune(tiny_network(), demo_images(), run, teacher=teacher)
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    after(6, told_to_end)  # of 4 steps in each epoch
    with pytest.raises(KeyboardInterrupt, match="go on with resume=True"):
        finetune(tiny_network(), demo_images(), run, teacher=teacher, output=tmp_path)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers
    assert (read_checkpoint(tmp_path / STEP)["epoch"], read_checkpoint(tmp_path / STEP)["batch"]) == (1, 2)
    with pytest.raises(TuckertreeError, match="holds an unfinished run"):
        finetune(tiny_network(), demo_images(), run, teacher=teacher, output=tmp_path)
    resumed = finetune(tiny_network(), demo_images(), run, teacher=teacher, output=tmp_path, resume=True)
    assert same_weights(whole.model, resumed.model)
    assert whole.history == resumed.history
    assert resumed.distilled
    assert any((tmp_path / "logs").iterdir())


def test_a_run_without_a_checkpoint_starts_with_a_warning(tmp_path):
    with pytest.warns(UserWarning, match="no checkpoint in .*; starting from the beginning"):
        train(tiny_network(), demo_images(), settings(1), output=tmp_path / "new", resume=True)


def test_a_finished_run_is_given_again(tmp_path):
    outcome = train(tiny_network(), demo_images(), settings(1), output=tmp_path)
    again = train(tiny_network(), demo_images(), settings(1), output=tmp_path, resume=True)
    assert same_weights(outcome.model, again.model)


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    train(tiny_network(), demo_images(), settings(1), output=tmp_path)
    with pytest.raises(UsageError, match=r"another run \(epochs 1 there, 2 here\)"):
        train(tiny_network(), demo_images(), settings(2), output=tmp_path, resume=True)


def test_a_loss_that_is_no_number_ends_with_the_last_good_epoch(tmp_path, after):
    good = train(tiny_network(), demo_images(), settings(3), output=tmp_path / "good")
    after(7, spoil)
    with pytest.warns(UserWarning, match=r"in epoch 2: lr 0.05 diverged; the weights of epoch 1 are kept"):
        outcome = train(tiny_network(), demo_images(), settings(3), output=tmp_path / "bad")
    assert outcome.diverged
    assert list(outcome.history) == list(good.history)[:1]
    assert all(tensor.isfinite().all() for tensor in outcome.model.state_dict().values())


def test_a_loss_that_is_no_number_in_the_first_epoch_is_an_error_and_leaves_nothing(tmp_path, after):
    after(2, spoil)
    with pytest.raises(TuckertreeError, match=r"in epoch 1: lr 0\.05 diverged; give a lower one"):
        train(tiny_network(), demo_images(), settings(3), output=tmp_path)
    train(tiny_network(), demo_images(), settings(1), output=tmp_path)  # not refused as an unfinished run


def test_fine_tuning_balances_the_factors_and_keeps_the_plan(tmp_path):
    dense = tuckertree.build("demo")
    result = tuckertree.compress(dense, torch.zeros(1, 3, 32, 32), energy=0.5)
    run = settings(1, batch_size=8, limit_train=10, lr=1e-12, weight_decay=0.0)
    outcome = finetune(result, "demo", run, teacher=dense)
    chain = outcome.model.get_submodule("layer2.1.conv1")
    norms = [torch.linalg.matrix_norm(core.flatten(1, -2), ord=2) for core in list(chain.factors())[:-1]]
    for norm in norms[1:]:
        torch.testing.assert_close(norm, norms[0])
    saved = tuckertree.load(outcome.save(tmp_path / "out"))
    assert same_weights(saved, outcome.model)
    report = tuckertree.io.read_report(tmp_path / "out")
    assert report["training"]["settings"] == run.to_json()
    assert report["parameters"] == list(result.plan.parameters)


def test_images_in_worker_processes_are_those_in_memory(monkeypatch):
    from tuckertree.tools.training import sources

    resident = train(tiny_network(), demo_images(), settings(1, augment="none"))
    monkeypatch.setattr(sources, "RESIDENT_BYTES", 0)
    decoded = train(tiny_network(), demo_images(), settings(1, augment="none", workers=1))
    assert same_weights(resident.model, decoded.model)


def test_lower_precision_and_another_layout_train_too():
    outcome = train(tiny_network(), demo_images(), settings(4, precision="bf16", channels_last=True, lr=0.1))
    assert outcome.history[-1]["train_loss"] < outcome.history[0]["train_loss"]
    assert {tensor.dtype for tensor in outcome.model.parameters()} == {torch.float32}
    assert outcome.model[0].weight.is_contiguous()


class Holed(ArrayRecords):
    """Some images cannot be read."""

    def read(self, index):
        if index % 50 in self.holes:
            raise TuckertreeError(f"{self.where(index)}: damaged image")
        return super().read(index)


def holed(*holes):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (100, 3, 32, 32), dtype=torch.uint8, generator=generator)
    records = Holed("photographs", pixels, torch.arange(100) % 10, None)
    object.__setattr__(records, "holes", holes)
    return ImageSet(records, Preprocessing((32, 32)), range(50))


@pytest.mark.parametrize("resident", [2**31, 0])
def test_an_unreadable_image_is_named_and_left_out(monkeypatch, resident):
    from tuckertree.tools.training import sources

    monkeypatch.setattr(sources, "RESIDENT_BYTES", resident)
    run = Settings(2, batch_size=10, validation=0.0)
    with pytest.warns(UserWarning, match="left out: photographs, image 7: damaged") as warned:
        train(tiny_network(), holed(7), run)
    assert len(warned) == 1
    warnings.simplefilter("ignore")
    with pytest.raises(TuckertreeError, match=r"number 2 of 50 images that cannot be read, more than 1%"):
        train(tiny_network(), holed(7, 20), run)


def test_data_of_other_classes_are_refused_before_training():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 7))
    with pytest.raises(UsageError, match="has 10 classes and the network 7 outputs"):
        train(network, demo_images(), settings(1))
    with pytest.raises(UsageError, match="the teacher has 7 outputs and the network 10"):
        finetune(tiny_network(), demo_images(), settings(1), teacher=network)


def test_some_images_without_a_label_are_refused():
    images = demo_images()
    images._records.labels[3] = -1
    with pytest.raises(UsageError, match="has no label for 1 of 80 images; leave those out"):
        train(tiny_network(), images, settings(1, validation=0.0))


def test_data_without_labels_or_a_training_split_are_refused(tmp_path):
    images = holed()
    object.__setattr__(images._records, "labels", None)
    with pytest.raises(UsageError, match="photographs has no labels"):
        train(tiny_network(), images, settings(1))
    pillow = pytest.importorskip("PIL.Image")
    (tmp_path / "test/cat").mkdir(parents=True)
    pillow.new("RGB", (32, 32)).save(tmp_path / "test/cat/0.png")
    with pytest.raises(UsageError, match="has no split 'train'; it has test"):
        train("cifar10:resnet20", tmp_path, settings(1))


def test_what_is_missing_is_said():
    with pytest.raises(UsageError, match="give preprocessing, or an ImageSet"):
        train(tiny_network(), "demo", settings(1))
    with pytest.raises(UsageError, match="device 'cuda:99' cannot be used"):
        train(tiny_network(), demo_images(), settings(1), device="cuda:99")
    with pytest.raises(UsageError, match="need an output folder in common"):
        train(tiny_network(), demo_images(), settings(1, strategy="ddp"))
    with pytest.raises(UsageError, match="strategy fsdp works on CUDA alone, not on 'cpu'; use auto"):
        train(tiny_network(), demo_images(), settings(1, strategy="fsdp"), output="unused")
    with pytest.raises(UsageError, match="give the output folder"):
        train(tiny_network(), demo_images(), settings(1), resume=True)


def test_the_start_of_every_run_is_a_checkpoint(tmp_path, after):
    after(1, told_to_end)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_network(), demo_images(), settings(1), output=tmp_path)
    assert read_checkpoint(tmp_path / EPOCH)["epoch"] == 0
