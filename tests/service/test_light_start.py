from tests.test_layers import HEAVY, run_without


def test_the_service_listens_before_torch_is_imported() -> None:
    done = run_without(HEAVY, "import service.app, service.models, service.runtime, service.logs")
    assert done.returncode == 0, done.stderr
