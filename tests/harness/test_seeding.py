import torch

from leakgauge.harness.values.seeding import Streams


def test_names_not_order_address_numbers():
    root = Streams(3)
    assert root.child("a", "b") == root.child("a").child("b")
    first = torch.rand(4, generator=root.child("a").torch())
    root.child("z").torch()
    assert torch.equal(first, torch.rand(4, generator=root.child("a").torch()))


def test_near_names_and_seeds_differ():
    streams = [Streams(0, ("ab", "c")), Streams(0, ("a", "bc")), Streams(0, ("abc",)), Streams(1, ("ab", "c"))]
    assert len({s.entropy() for s in streams}) == len(streams)


def test_noise_of_an_image_does_not_depend_on_its_batch_mates():
    rng, lengths = Streams(1), torch.tensor([2, 3])
    both = rng.normal_per_image(("x", "y"), lengths, 4)
    assert torch.equal(both[2:], rng.normal_per_image(("y",), lengths[1:], 4))
    swapped = rng.normal_per_image(("y", "x"), lengths.flip(0), 4)
    assert torch.equal(both[:2], swapped[3:])
