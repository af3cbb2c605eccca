-- Of each provider, a name is one group's: members are added by it.
CREATE UNIQUE INDEX "groups_provider_name_key" ON "identity"."groups"("provider", "name");
