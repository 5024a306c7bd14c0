"""The product lists of the providers, as they last answered `retrieveProducts`."""

from __future__ import annotations

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from ucloud_orchestrator.models.provider_api import ProductsResponse
from ucloud_orchestrator.store.database import advisory_lock, write_transaction
from ucloud_orchestrator.store.tables import ProviderProducts


class Products:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def save(self, provider: str, products: ProductsResponse, at: int) -> None:
        """Replace a provider's list. `at`: milliseconds since the epoch."""
        document = products.model_dump_json(by_alias=True, exclude_none=True)
        async with write_transaction(self._engine) as connection:
            await advisory_lock(connection, [f"products of {provider}"])
            await connection.execute(
                delete(ProviderProducts).where(ProviderProducts.provider == provider)
            )
            await connection.execute(
                insert(ProviderProducts).values(provider=provider, document=document, at=at)
            )

    async def find(self, provider: str) -> ProductsResponse | None:
        """Return a provider's list, or None if it has never answered."""
        statement = select(ProviderProducts.document).where(ProviderProducts.provider == provider)
        async with self._engine.connect() as connection:
            document = await connection.scalar(statement)
        return None if document is None else ProductsResponse.model_validate_json(document)
