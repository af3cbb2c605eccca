"""
Speaks of a directory and an OpenID provider that are there, with a client that another project's generator made of the contract. Usage:
providers.py CONTRACT.json URL ADMIN-PASSWORD PROVIDERS, of an installation that has no user but the administrator.
"""

import json
import sys

import harbor_client as api

from contract import Contract, client

contract_file, url, password, providers = sys.argv[1:]
called = {}
admin = client(url, Contract(contract_file), called, "admin", password)
directory = json.loads(providers)["directory"]
issuer = json.loads(providers)["issuer"]

configuration = api.ConfigureApi(admin)
configuration.update_configurations(api.Configurations(auth_mode="ldap_auth", **directory))
before = configuration.get_configurations()
assert (before.auth_mode.value, before.ldap_url.value) == ("ldap_auth", directory["ldap_url"]), before

ldap = api.LdapApi(admin)
assert ldap.ping_ldap().success, "the directory that is configured does not answer"
[ann] = ldap.search_ldap_user(username="ann")
assert (ann.username, ann.email) == ("ann", "ann@example.com"), ann
[builders] = ldap.search_ldap_group(groupname="builders")
assert builders.ldap_group_dn.lower().startswith("cn=builders,"), builders
ldap.import_ldap_user(ldap_import_users=api.LdapImportUsers(ldap_uid_list=["ann"]))
groups = api.UsergroupApi(admin)
groups.create_user_group(user_group=api.UserGroup(group_name="builders", group_type=1, ldap_group_dn=builders.ldap_group_dn))
[group] = groups.list_user_groups(ldap_group_dn=builders.ldap_group_dn)
groups.delete_user_group(group.id)

own = api.UserApi(client(url, Contract(contract_file), called, "ann", "ann-secret"))
assert own.get_current_user_info().username == "ann"
users = api.UserApi(admin)
[imported] = users.list_users()
users.delete_user(imported.user_id)
configuration.update_configurations(api.Configurations(auth_mode="db_auth"))
api.OidcApi(admin).ping_oidc(ping_oidc_request=api.PingOIDCRequest(url=issuer, verify_cert=False))
print(json.dumps({name: sorted(statuses) for name, statuses in sorted(called.items())}))
