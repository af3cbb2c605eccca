"""
Creates, lists, changes and deletes each object of accounts, projects and configuration with a client that another project's generator made
of the contract. Usage: scenario.py CONTRACT.json URL ADMIN-PASSWORD. Prints the operations that it called, as JSON.
"""

import json
import sys

import harbor_client as api
from harbor_client.exceptions import ApiException

from contract import Contract, client

TAGS = """user usergroup member project projectMetadata robot permissions configure Ldap oidc systeminfo health ping statistic search quota
label immutable SystemCVEAllowlist auditlog registry""".split()
# Answers of 2xx need a directory or a provider, artifacts or scanners: what is asked of them here is a refusal that the contract knows.
REFUSED = {"importLdapUser", "pingLdap", "searchLdapGroup", "searchLdapUser", "pingOIDC", "setCliSecret", "getCert"}
ELSEWHERE = {
    "listScannerCandidatesOfProject", "getScannerOfProject", "setScannerOfProject", "listArtifactsOfProject", "getInternalconfig",
}

contract_file, url, password = sys.argv[1:]
contract = Contract(contract_file)
called = {}
admin = client(url, contract, called, "admin", password)


def made(call, *args, **kwargs):
    """Creates something. Its id is the last part of Location, which is a path."""
    answer = call(*args, **kwargs)
    location = answer.headers["Location"]
    assert answer.status_code == 201 and location.startswith("/api/v2.0/"), (answer.status_code, location)
    return location.rsplit("/", 1)[-1]


def refused(status, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except ApiException as error:
        assert error.status == status, (error.status, status, error.body)
        assert json.loads(error.body)["errors"][0]["code"], error.body
        return
    raise AssertionError(f"{call.__name__} was not refused")


def pages(call, size=2, **kwargs):
    """Every page of a list, as its headers tell of them."""
    everything, number = [], 0
    while True:
        number += 1
        answer = call(page=number, page_size=size, **kwargs)
        everything += answer.data
        if 'rel="next"' not in answer.headers.get("Link", ""):
            assert int(answer.headers["X-Total-Count"]) == len(everything), (call.__name__, answer.headers, len(everything))
            return everything


def system():
    health = api.HealthApi(admin).get_health()
    assert health.status == "healthy" and all(part.status == "healthy" for part in health.components), health
    assert api.PingApi(admin).get_ping() == "Pong"
    info = api.SysteminfoApi(admin)
    assert info.get_system_info().auth_mode == "db_auth"
    assert info.get_volumes().storage[0].total > 0
    refused(404, info.get_cert)
    assert api.PermissionsApi(admin).get_permissions().system
    assert api.StatisticApi(admin).get_statistic().total_project_count >= 1
    configuration = api.ConfigureApi(admin)
    before = configuration.get_configurations()
    assert before.robot_name_prefix.value == "robot$" and before.robot_name_prefix.editable is True
    configuration.update_configurations(api.Configurations(session_timeout=77, read_only=False))
    assert configuration.get_configurations().session_timeout.value == 77
    configuration.update_configurations(api.Configurations(session_timeout=before.session_timeout.value))
    ldap = api.LdapApi(admin)
    refused(400, ldap.ping_ldap, ldap_conf=api.LdapConf(ldap_url=""))
    refused(412, ldap.search_ldap_user, username="ann")
    refused(412, ldap.search_ldap_group, groupname="staff")
    refused(412, ldap.import_ldap_user, ldap_import_users=api.LdapImportUsers(ldap_uid_list=["ann"]))
    refused(400, api.OidcApi(admin).ping_oidc, ping_oidc_request=api.PingOIDCRequest(url="not a url", verify_cert=True))
    allowlist = api.SystemCVEAllowlistApi(admin)
    allowlist.put_system_cve_allowlist(cve_allowlist=api.CVEAllowlist(items=[api.CVEAllowlistItem(cve_id="CVE-2026-1")]))
    assert [item.cve_id for item in allowlist.get_system_cve_allowlist().items] == ["CVE-2026-1"]
    allowlist.put_system_cve_allowlist(cve_allowlist=api.CVEAllowlist(items=[]))


def users():
    users_of = api.UserApi(admin)

    def new(name):
        wanted = api.UserCreationReq(username=name, email=f"{name}@example.com", realname=name, password="Passw0rd")
        return int(made(users_of.create_user_with_http_info, user_creation_req=wanted))

    ids = [new(f"ann-{n}") for n in range(3)]
    refused(409, new, "ann-0")
    assert [user.user_id for user in pages(users_of.list_users_with_http_info, q="username=~ann-", sort="username")] == ids
    assert [user.user_id for user in pages(users_of.search_users_with_http_info, username="ann-")] == ids
    users_of.update_user_profile(ids[0], user_profile=api.UserProfile(email="ann@example.com", realname="Ann", comment="first"))
    users_of.set_user_sys_admin(ids[0], user_sys_admin_flag=api.UserSysAdminFlag(sysadmin_flag=True))
    ann = users_of.get_user(ids[0])
    assert (ann.realname, ann.comment, ann.sysadmin_flag, ann.email) == ("Ann", "first", True, "ann@example.com"), ann
    users_of.update_user_password(ids[1], password_req=api.PasswordReq(new_password="Passw0rd2"))
    own = api.UserApi(client(url, contract, called, "ann-1", "Passw0rd2"))
    assert own.get_current_user_info().user_id == ids[1]
    assert isinstance(own.get_current_user_permissions(scope="/project/1", relative=True), list)
    refused(403, own.list_users)
    refused(412, users_of.set_cli_secret, ids[1], oidc_cli_secret_req=api.OIDCCliSecretReq(secret="Secret-1234"))
    users_of.delete_user(ids[2])
    refused(404, users_of.get_user, ids[2])
    return ids[:2]


def groups():
    groups_of = api.UsergroupApi(admin)
    new = lambda name: int(made(groups_of.create_user_group_with_http_info, user_group=api.UserGroup(group_name=name, group_type=2)))
    ids = [new(f"staff-{n}") for n in range(3)]
    refused(409, new, "staff-0")
    # Which of them are listed is the auth_mode's to say; the search finds all.
    pages(groups_of.list_user_groups_with_http_info)
    assert [group.id for group in pages(groups_of.search_user_groups_with_http_info, groupname="staff")] == ids
    groups_of.update_user_group(ids[0], user_group=api.UserGroup(group_name="crew"))
    assert groups_of.get_user_group(ids[0]).group_name == "crew"
    groups_of.delete_user_group(ids[2])
    refused(404, groups_of.get_user_group, ids[2])
    return ids[:2]


def registries():
    registries_of = api.RegistryApi(admin)
    assert "docker-registry" in registries_of.list_registry_provider_types()
    assert registries_of.list_registry_provider_infos()
    wanted = api.Registry(
        name="myself", type="harbor", url=url,
        credential=api.RegistryCredential(type="basic", access_key="admin", access_secret=password),
    )
    id = int(made(registries_of.create_registry_with_http_info, registry=wanted))
    refused(409, registries_of.create_registry, registry=wanted)
    assert [each.name for each in pages(registries_of.list_registries_with_http_info)] == ["myself"]
    registries_of.ping_registry(registry_ping=api.RegistryPing(id=id))
    registries_of.update_registry(id, registry_update=api.RegistryUpdate(description="this one"))
    read = registries_of.get_registry(id)
    assert (read.description, read.status) == ("this one", "healthy"), read
    assert password not in (read.credential.access_secret or "")
    assert registries_of.get_registry_info(id).type == "harbor"
    registries_of.delete_registry(id)
    refused(404, registries_of.get_registry, id)


def projects(user_ids, group_ids):
    projects_of = api.ProjectApi(admin)
    new = lambda name: int(
        made(projects_of.create_project_with_http_info, project_req=api.ProjectReq(project_name=name, metadata=api.ProjectMetadata(public="false")))
    )
    ids = [new(f"team-{n}") for n in range(3)]
    refused(409, new, "team-0")
    projects_of.head_project("team-0")
    assert [project.project_id for project in pages(projects_of.list_projects_with_http_info, name="team-")] == ids
    projects_of.update_project("team-0", project_req=api.ProjectReq(metadata=api.ProjectMetadata(auto_scan="true")))
    assert projects_of.get_project("team-0", x_is_resource_name=True).metadata.auto_scan == "true"
    assert projects_of.get_project(str(ids[0])).name == "team-0"
    assert projects_of.get_project_summary("team-0").repo_count == 0
    assert projects_of.get_project_deletable("team-0").deletable is True

    metadata = api.ProjectMetadataApi(admin)
    metadata.add_project_metadatas("team-0", request_body={"severity": "high"})
    metadata.update_project_metadata("team-0", "severity", request_body={"severity": "low"})
    assert metadata.get_project_metadata("team-0", "severity") == {"severity": "low"}
    assert metadata.list_project_metadatas("team-0")["auto_scan"] == "true"
    metadata.delete_project_metadata("team-0", "severity")
    assert "severity" not in metadata.list_project_metadatas("team-0")

    members = api.MemberApi(admin)
    add = lambda **who: int(made(members.create_project_member_with_http_info, "team-0", project_member=api.ProjectMember(role_id=2, **who)))
    member_ids = [add(member_user=api.UserEntity(user_id=user_ids[0])), add(member_group=api.UserGroup(id=group_ids[0]))]
    refused(409, add, member_user=api.UserEntity(user_id=user_ids[0]))
    assert {member.id for member in pages(members.list_project_members_with_http_info, project_name_or_id="team-0")} >= set(member_ids)
    members.update_project_member("team-0", member_ids[0], role_request=api.RoleRequest(role_id=4))
    assert members.get_project_member("team-0", member_ids[0]).role_name == "maintainer"
    members.delete_project_member("team-0", member_ids[1])
    refused(404, members.get_project_member, "team-0", member_ids[1])

    robots(ids[0])
    labels(ids[0])

    rules = api.ImmutableApi(admin)
    rule = api.ImmutableRule(
        action="immutable", template="immutable_template", disabled=False,
        tag_selectors=[api.ImmutableSelector(kind="doublestar", decoration="matches", pattern="v*")],
        scope_selectors={"repository": [api.ImmutableSelector(kind="doublestar", decoration="repoMatches", pattern="**")]},
    )
    rule_id = int(made(rules.create_immu_rule_with_http_info, "team-0", immutable_rule=rule))
    rule.id, rule.disabled = rule_id, True
    rules.update_immu_rule("team-0", rule_id, immutable_rule=rule)
    assert [each.disabled for each in pages(rules.list_immu_rules_with_http_info, project_name_or_id="team-0")] == [True]
    rules.delete_immu_rule("team-0", rule_id)
    assert rules.list_immu_rules("team-0") == []

    quotas = api.QuotaApi(admin)
    [quota] = quotas.list_quotas(reference="project", reference_id=str(ids[0]))
    quotas.update_quota(quota.id, quota_update_req=api.QuotaUpdateReq(hard={"storage": 1 << 30}))
    assert quotas.get_quota(quota.id).hard["storage"] == 1 << 30
    assert len(pages(quotas.list_quotas_with_http_info, sort="-used.storage")) >= 3

    found = api.SearchApi(admin).search("team-0")
    assert [project.name for project in found.project] == ["team-0"], found

    audit = api.AuditlogApi(admin)
    assert "create_project" in [each.event_type for each in audit.list_audit_log_event_types()]
    audit.list_audit_logs()
    audit.list_audit_log_exts(q="operation=create", sort="-op_time", page_size=100)
    projects_of.get_logs("team-0")
    projects_of.get_log_exts("team-0", page_size=100)

    projects_of.delete_project("team-2")
    refused(404, projects_of.get_project, "team-2")


def robots(project_id):
    robots_of = api.RobotApi(admin)
    pull = api.Access(resource="repository", action="pull")
    places = [("system", "*", "ci", "Level=system"), ("project", "team-0", "deploy", f"Level=project,ProjectID={project_id}")]
    for level, namespace, name, q in places:
        wanted = api.RobotCreate(
            name=name, level=level, duration=-1,
            permissions=[api.RobotPermission(kind="project", namespace=namespace, access=[pull])],
        )
        answer = robots_of.create_robot_with_http_info(robot_create=wanted)
        assert answer.headers["Location"] == f"/api/v2.0/robots/{answer.data.id}", answer.headers
        robot = answer.data
        assert robot.secret and robot.name.startswith("robot$"), robot
        refused(409, robots_of.create_robot, robot_create=wanted)
        listed = pages(robots_of.list_robot_with_http_info, q=q)
        assert [each.id for each in listed] == [robot.id] and not listed[0].secret, listed
        read = robots_of.get_robot_by_id(robot.id)
        read.description = "builds"
        robots_of.update_robot(robot.id, robot=read)
        assert robots_of.get_robot_by_id(robot.id).description == "builds"
        refreshed = robots_of.refresh_sec(robot.id, robot_sec=api.RobotSec(secret="Changed-1234"))
        assert refreshed is not None
        own = api.ProjectApi(client(url, contract, called, robot.name, "Changed-1234"))
        refused(403, own.create_project, project_req=api.ProjectReq(project_name="none-of-his"))
        robots_of.delete_robot(robot.id)
        refused(404, robots_of.get_robot_by_id, robot.id)


def labels(project_id):
    labels_of = api.LabelApi(admin)
    for scope, project in [("g", None), ("p", project_id)]:
        wanted = api.Label(name=f"blue-{scope}", color="#0000ff", scope=scope, project_id=project)
        id = int(made(labels_of.create_label_with_http_info, label=wanted))
        refused(409, labels_of.create_label, label=wanted)
        assert [each.id for each in pages(labels_of.list_labels_with_http_info, scope=scope, project_id=project)] == [id]
        wanted.description = "as the sky"
        labels_of.update_label(id, label=wanted)
        assert labels_of.get_label_by_id(id).description == "as the sky"
        labels_of.delete_label(id)
        refused(404, labels_of.get_label_by_id, id)


system()
projects(users(), groups())
registries()

missing = [
    operation["operationId"]
    for methods in contract.document["paths"].values()
    for operation in methods.values()
    if isinstance(operation, dict) and set(operation.get("tags", [])) & set(TAGS)
    for id in [operation["operationId"]]
    if id not in ELSEWHERE and not any(s < 300 for s in called.get(id, ())) and not (id in REFUSED and id in called)
]
assert missing == [], f"never answered as they should: {missing}"
print(json.dumps({name: sorted(statuses) for name, statuses in sorted(called.items())}))
