import pytest
import torch

from dreamfusion.config import OccupancyConfig
from dreamfusion.nerf.fields import Gaussians
from dreamfusion.nerf.occupancy import Occupancy
from reference.analytic_fields import Shape, ball

pytestmark = pytest.mark.processor


def uniform(count, radius, seed=0):
    return (torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)) * 2 - 1) * radius


def test_everything_is_occupied_before_the_first_update():
    occupancy = Occupancy(OccupancyConfig(cells=8), radius=2.0)
    assert occupancy.mask(uniform(500, 2.0)).all()
    occupancy.update(ball(0.5, 10.0), torch.Generator().manual_seed(0), parts=4)
    never_asked = occupancy.density.isinf()
    assert never_asked.float().mean() == 0.75
    assert occupancy.occupied[never_asked].all()


def test_mask_keeps_all_matter_and_drops_most_of_the_rest():
    radius, cells = 2.0, 32
    occupancy = Occupancy(OccupancyConfig(cells=cells), radius)
    field = ball(0.9, 10.0)
    occupancy.update(field, torch.Generator().manual_seed(0))
    points = uniform(5000, radius)
    kept = occupancy.mask(points)
    assert kept[points.norm(dim=-1) < 0.9].all()
    # A cell's diagonal, and the margin of one cell around it.
    reach = 0.9 + 2 * 3**0.5 * (2 * radius / cells)
    assert not kept[points.norm(dim=-1) > reach].any()


def test_mask_reads_the_cell_a_point_lies_in():
    occupancy = Occupancy(OccupancyConfig(cells=4, margin=0), radius=2.0)
    occupancy.occupied.fill_(False)
    occupancy.occupied.view(4, 4, 4)[2, 0, 3] = True  # z in [0, 1), y in [-2, -1), x in [1, 2)
    points = uniform(2000, 2.0)
    low, high = torch.tensor([1.0, -2.0, 0.0]), torch.tensor([2.0, -1.0, 1.0])
    assert torch.equal(occupancy.mask(points), ((points >= low) & (points < high)).all(-1))
    assert occupancy.mask(points.view(20, 100, 3)).shape == (20, 100)


@pytest.mark.parametrize("parts", [1, 2, 3, 4, 7])
def test_parts_reach_every_cell_once(parts):
    asked = []

    class Recorder(torch.nn.Module):
        uses_covariance = False

        def density(self, at: Gaussians):
            asked.append(at.mean)
            return torch.zeros(len(at.mean))

        evaluate = parameter_groups = density

    occupancy = Occupancy(OccupancyConfig(cells=5), radius=1.0)
    for _ in range(parts):
        occupancy.update(Recorder(), torch.Generator().manual_seed(0), parts)
    cell = ((torch.cat(asked) + 1) * 2.5).floor().long()
    number = (cell[:, 2] * 5 + cell[:, 1]) * 5 + cell[:, 0]
    assert set(number.tolist()) == set(range(125))
    assert len(number) <= 125 + parts
    assert not occupancy.mask(uniform(100, 1.0)).any()


def test_matter_that_went_is_forgotten_slowly_and_new_matter_is_seen_at_once():
    occupancy = Occupancy(OccupancyConfig(cells=8, threshold=1.0, decay=0.5, margin=0), radius=1.0)
    generator = torch.Generator().manual_seed(0)
    everywhere, nowhere = ball(9.0, 7.0), ball(0.0, 7.0)
    occupancy.update(everywhere, generator)
    shares = []
    for _ in range(4):  # 3.5, 1.75, 0.875: under 1 at the third refresh
        occupancy.update(nowhere, generator)
        shares.append(float(occupancy.occupied_fraction()))
    assert shares == [1.0, 1.0, 0.0, 0.0]
    occupancy.update(everywhere, generator)
    assert occupancy.occupied_fraction() == 1.0


def test_state_is_in_the_checkpoint():
    config, generator = OccupancyConfig(cells=8), torch.Generator().manual_seed(0)
    first, second = Occupancy(config, 1.0), Occupancy(config, 1.0)
    first.update(ball(0.5, 3.0), generator, parts=3)
    second.load_state_dict(first.state_dict())
    for occupancy in (first, second):
        occupancy.update(ball(0.4, 3.0), torch.Generator().manual_seed(1), parts=3)
    assert all(torch.equal(a, b) for a, b in zip(first.buffers(), second.buffers(), strict=True))


def test_bounds_are_the_box_around_the_occupied_cells():
    occupancy = Occupancy(OccupancyConfig(cells=8, margin=0), radius=2.0)
    assert occupancy.bounds.tolist() == [[-2.0] * 3, [2.0] * 3]
    # Matter in 0.6 < x < 0.9, -1.9 < y < -0.6, everywhere along z; cells are 0.5 wide.
    inside = lambda x: (x[:, 0] > 0.6) & (x[:, 0] < 0.9) & (x[:, 1] > -1.9) & (x[:, 1] < -0.6)  # noqa: E731
    for _ in range(20):  # a cell is asked at one random point
        occupancy.update(Shape(inside, 5.0), torch.Generator().manual_seed(_))
    assert occupancy.bounds.tolist() == [[0.5, -2.0, -2.0], [1.0, -0.5, 2.0]]


def test_empty_space_has_no_bounds():
    occupancy = Occupancy(OccupancyConfig(cells=8), radius=2.0)
    occupancy.update(ball(0.0, 1.0), torch.Generator().manual_seed(0))
    assert torch.equal(occupancy.bounds[0], occupancy.bounds[1])


def test_points_outside_the_cube_read_its_border():
    occupancy = Occupancy(OccupancyConfig(cells=4, margin=0), radius=2.0)
    occupancy.occupied.fill_(False)
    occupancy.occupied.view(4, 4, 4)[2, 0, 3] = True  # z in [0, 1), the lowest y, the highest x
    points = torch.tensor([[9.0, -9.0, 0.5], [2.0, -2.0, 0.5], [9.0, 9.0, 0.5], [-9.0, -9.0, 0.5], [9.0, -9.0, 9.0]])
    assert occupancy.mask(points).tolist() == [True, True, False, False, False]


def test_with_a_threshold_of_zero_empty_space_is_empty():
    occupancy = Occupancy(OccupancyConfig(cells=8, threshold=0.0, margin=0), radius=1.0)
    occupancy.update(ball(0.0, 1.0), torch.Generator().manual_seed(0))
    assert not occupancy.occupied.any()
