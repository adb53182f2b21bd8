"""What is wrong with an object store, by what it answered: decided by status, error code and headers, as the
stores document them."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

#: S3 refuses what is signed with a clock that is further off; Azure and Google's allow as much.
MAX_SKEW_SECONDS = 900


class Trouble(Enum):
    BUCKET = "bucket"
    CREDENTIALS = "credentials"
    PERMISSION = "permission"
    REGION = "region"
    CLOCK = "clock"
    THROTTLED = "throttled"
    FAILING = "failing"


class StoreAnswer(NamedTuple):
    """``code`` as in the body of an error, '' where there is none; ``skew`` is how many seconds this machine's clock is
    ahead of the store's, ``region`` where the bucket is, if it said so."""

    status: int
    code: str
    skew: float
    region: str | None


#: Of S3 and what speaks its language (Google's XML API as well), and of Azure.
_CODES = {
    Trouble.BUCKET: ("NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted", "ContainerDisabled"),
    Trouble.CREDENTIALS: (
        "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "TokenRefreshRequired",
        "InvalidSecurity", "NotSignedUp", "AuthenticationFailed", "NoAuthenticationInformation",
        "InvalidAuthenticationInfo", "AuthenticationRequired",
    ),
    Trouble.PERMISSION: (
        "AccessDenied", "AllAccessDisabled", "AccountProblem", "InsufficientAccountPermissions",
        "AuthorizationFailure", "AuthorizationPermissionMismatch", "AccountIsDisabled",
    ),
    Trouble.REGION: (
        "PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "AuthorizationQueryParametersError",
        "IllegalLocationConstraintException", "Redirect",
    ),
    Trouble.CLOCK: ("RequestTimeTooSkewed", "RequestExpired"),
    Trouble.THROTTLED: ("SlowDown", "TooManyRequests", "RequestLimitExceeded", "ServerBusy", "ServiceUnavailable"),
}  # fmt: skip
_BY_CODE = {code: trouble for trouble, codes in _CODES.items() for code in codes}
_BY_STATUS = {301: Trouble.REGION, 307: Trouble.REGION, 401: Trouble.CREDENTIALS, 403: Trouble.PERMISSION}
_BY_STATUS |= {429: Trouble.THROTTLED, 503: Trouble.THROTTLED}


def trouble(answer: StoreAnswer) -> Trouble | None:
    """None where the answer is as it should be, whether there is such a blob or not."""
    found = _BY_CODE.get(answer.code) or _BY_STATUS.get(answer.status)
    if found in (Trouble.PERMISSION, Trouble.CREDENTIALS) and abs(answer.skew) > MAX_SKEW_SECONDS:
        # A URL signed with such a clock has expired or is not valid yet, which has no code of its own.
        return Trouble.CLOCK
    return found or (Trouble.FAILING if answer.status >= 500 else None)
