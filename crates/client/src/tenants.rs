//! What belongs to the cluster and not to one stream: tenants, restore points, producers.

use duramen_proto::v1;
use duramen_types::{ProducerId, RestorePointName, TenantName};

use crate::retry::Effect;
use crate::{Client, Error, Page, RestorePoint, TenantInfo};

impl Client {
    /// Creates a tenant; fails with `tenant_exists` if there is one of that name.
    pub async fn create_tenant(&self, tenant: &TenantName) -> Result<TenantInfo, Error> {
        let request = v1::CreateTenantRequest { tenant: tenant.to_string() };
        let info = self
            .call("creating a tenant", Effect::Once, request, |mut log, request| async move {
                log.create_tenant(request).await
            })
            .await?;
        Ok(info.into())
    }

    /// Lists the tenants, at most `page_size` (0: the node's choice).
    pub async fn list_tenants(&self, page_size: u32, page: Option<&str>) -> Result<Page<TenantInfo>, Error> {
        let request = v1::ListTenantsRequest { page_size, page_token: page.unwrap_or_default().to_owned() };
        let list = self
            .call("listing tenants", Effect::None, request, |mut log, request| async move {
                log.list_tenants(request).await
            })
            .await?;
        Ok(Page::new(list.tenants.into_iter().map(Into::into).collect(), list.next_page_token))
    }

    /// Names the present instant, so that a restore can go back to it by name.
    ///
    /// Everything that was acknowledged to this client before is part of it.
    pub async fn create_restore_point(&self, name: &RestorePointName) -> Result<RestorePoint, Error> {
        let request = v1::CreateRestorePointRequest { name: name.to_string() };
        let point = self
            .call("creating a restore point", Effect::Once, request, |mut log, request| async move {
                log.create_restore_point(request).await
            })
            .await?;
        Ok(point.into())
    }

    /// Lists the named restore points, at most `page_size` (0: the node's choice).
    pub async fn list_restore_points(
        &self,
        page_size: u32,
        page: Option<&str>,
    ) -> Result<Page<RestorePoint>, Error> {
        let request =
            v1::ListRestorePointsRequest { page_size, page_token: page.unwrap_or_default().to_owned() };
        let list = self
            .call("listing restore points", Effect::None, request, |mut log, request| async move {
                log.list_restore_points(request).await
            })
            .await?;
        Ok(Page::new(list.restore_points.into_iter().map(Into::into).collect(), list.next_page_token))
    }

    /// Allocates an idempotent producer's id; its epoch starts at 0.
    pub async fn allocate_producer(&self) -> Result<ProducerId, Error> {
        // An id that is allocated twice leaves a hole, which harms nothing.
        let allocated = self
            .call(
                "allocating a producer",
                Effect::Idempotent,
                v1::AllocateProducerRequest {},
                |mut log, request| async move { log.allocate_producer(request).await },
            )
            .await?;
        Ok(ProducerId::new(allocated.producer_id))
    }
}
