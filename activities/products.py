"""What providers offer now: asked in each scheduled check, kept in the store, and believed before
the catalog.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from temporalio import activity

from activities.provider_http import ProviderHttp
from ucloud_orchestrator.models.product import ComputeSupport, ProductReference
from ucloud_orchestrator.store import Products

CACHE_TTL = 5.0
"""How long a worker believes what it last read in the store."""


class ProductActivities:
    """The scheduled question for products, on the provider's task queue."""

    def __init__(self, provider: str, http: ProviderHttp, products: Products) -> None:
        self._provider = provider
        self._http = http
        self._products = products

    @activity.defn
    async def refresh_products(self) -> None:
        """Ask what is offered, and keep the answer.

        One that cannot be read is an error, and the last one stays.
        """
        await self._products.save(
            self._provider, await self._http.products(), int(time.time() * 1000)
        )


class ProductCache:
    """What each provider offers and supports, read again after a few seconds."""

    def __init__(self, products: Products) -> None:
        self._products = products
        self._read: dict[str, tuple[float, Mapping[ProductReference, ComputeSupport] | None]] = {}

    async def of(self, provider: str) -> Mapping[ProductReference, ComputeSupport] | None:
        """The provider's products with what it can do with each; None if it was never heard: the
        catalog decides.
        """
        known = self._read.get(provider)
        if known is None or time.monotonic() - known[0] > CACHE_TTL:
            answer = await self._products.of(provider)
            offered = (
                None
                if answer is None
                else {entry.product: entry.support for entry in answer.responses}
            )
            known = self._read[provider] = (time.monotonic(), offered)
        return known[1]
