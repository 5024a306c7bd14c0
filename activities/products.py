"""The products of the providers: polled in each provider check, and cached by the workers."""

from __future__ import annotations

import time
from collections.abc import Mapping

from temporalio import activity

from activities.provider_http import ProviderHttp
from ucloud_orchestrator.catalog import Catalog
from ucloud_orchestrator.models.product import ComputeSupport, ProductReference
from ucloud_orchestrator.store import Products

CACHE_TTL = 5.0
"""Seconds."""

SupportByProduct = Mapping[ProductReference, ComputeSupport]


class ProductActivities:
    """An activity of the provider check, on the provider's task queue."""

    def __init__(self, provider: str, http: ProviderHttp, products: Products) -> None:
        self._provider = provider
        self._http = http
        self._products = products

    @activity.defn
    async def refresh_products(self) -> None:
        """Store the provider's products. After an invalid answer the stored ones stay."""
        products = await self._http.products()
        await self._products.save(self._provider, products, int(time.time() * 1000))


class ProductCache:
    """The stored products of each provider, with a time to live."""

    def __init__(self, products: Products) -> None:
        self._products = products
        self._entries: dict[str, tuple[float, SupportByProduct | None]] = {}

    async def find(self, provider: str) -> SupportByProduct | None:
        """Return a provider's products; None if it has never answered: the catalog decides."""
        entry = self._entries.get(provider)
        if entry is None or time.monotonic() - entry[0] > CACHE_TTL:
            answer = await self._products.find(provider)
            products = (
                None
                if answer is None
                else {entry.product: entry.support for entry in answer.responses}
            )
            entry = self._entries[provider] = (time.monotonic(), products)
        return entry[1]

    async def find_support(
        self, product: ProductReference, catalog: Catalog
    ) -> ComputeSupport | None:
        """Return what the provider supports on a product, or else what the catalog declares."""
        products = await self.find(product.provider) or {}
        return products.get(product) or catalog.support(product)
