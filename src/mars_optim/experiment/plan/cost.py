"""Money: what the real job and the pilot cost."""

from __future__ import annotations

from ...errors import UserError
from .table import Number, Whole, option, table


@table
class CostPlan:
    """Money; left out of the report at price 0."""

    price_per_hour: Number = option(
        0.0, "of one device of the real job (of the whole fleet, if devices is 1)", ge=0.0
    )
    devices: Whole = option(1, "of the real job, paid for together", ge=1)
    currency: str = option("USD", "any text")
    planned_hours: Number = option(
        1000.0, "hours that the real job takes today, to which the saving is applied", gt=0.0
    )
    planned_tokens: Number = option(0.0, "of the real job; 0 if not known", ge=0.0)
    tokens_per_hour: Number = option(
        0.0, "of the whole fleet today; with planned_tokens it replaces planned_hours", ge=0.0
    )
    pilot_price_per_hour: Number = option(
        0.0, "of the machine that runs this pilot; 0 for price_per_hour", ge=0.0
    )
    budget: Number = option(
        0.0, "most that this pilot may spend, by the clock; 0 for no limit", ge=0.0
    )


def check_cost(cost: CostPlan) -> None:
    """See that a budget has a price.

    Raises:
        UserError: naming the key.
    """
    if cost.budget and not (cost.price_per_hour or cost.pilot_price_per_hour):
        raise UserError(f"cost.budget = {cost.budget:g} needs a price: set cost.price_per_hour")
