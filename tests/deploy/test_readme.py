from deploy.readme import fields_table, settings_table
from service.http.fields import FIELDS
from service.settings import PREFIX, Settings


def rows(table: str) -> list[str]:
    return table.splitlines()[2:]


def test_each_setting_and_each_field_has_a_row():
    settings, fields = rows(settings_table()), rows(fields_table())
    assert [row.split("`")[1] for row in settings] == [PREFIX + name.upper() for name in Settings.model_fields]
    assert [row.split("`")[1] for row in fields] == list(FIELDS)
    assert {row.count("|") for row in settings} == {5}
    assert {row.count("|") for row in fields} == {4}
