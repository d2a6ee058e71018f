"""Things that the account has a list of: the list, one of them, its contents and its end, for pixels and audiences.

`GET /things` is the list, a page of it, and `DELETE /things/{id}` the end of one, in both forms. What may go wrong:
`GET /things/{id}` answers the thing itself (documented), or a page of what is in it (observed).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from workers.clients.audiencelab.answers import (
    VENDOR,
    folded,
    is_failure,
    lacking,
    piece,
    read_done,
    refused,
)
from workers.clients.audiencelab.pages import Page, page_request, read_items, read_page
from workers.clients.errors import Misconfigured, Unavailable
from workers.clients.messages import Answer, Request

T = TypeVar("T")

#: Rows a page: observed for lists, and for what is in a thing of them.
MOST_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Listed(Generic[T]):
    """A kind of thing: the *path* of its list, the *word* for one, and the word for what is in one.

    *read* returns the thing that an object tells of, None for an object that is no such thing.
    """

    path: str
    word: str
    contents: str
    read: Callable[[dict[str, object]], T | None]

    @property
    def path_of_one(self) -> str:
        """The path of one of them, as sentences tell it: ids are not repeated."""
        return f"{self.path}/{{id}}"

    def list_request(self, page: int, page_size: int) -> Request:
        """Return the request for a page of the list, 1 to 1000 a page (observed)."""
        return page_request(self.path, page, page_size, MOST_ROWS)

    def read_list(self, answer: Answer, page: int, page_size: int) -> Page[T]:
        """Return a page of the list, or raise the `CallFailed` that *answer* means."""
        return read_items(answer, self.path, page, page_size, self.read)

    def get_request(self, own_id: str) -> Request:
        """Return the request for one of them (documented)."""
        return Request("GET", f"{self.path}/{piece(own_id)}")

    def read_one(self, answer: Answer) -> T:
        """Return the one of *answer*, or raise the `CallFailed` that it means."""
        members = answer.members()
        thing = self.read(members)
        if thing is None or not answer.is_success or is_failure(members):
            raise refused(answer, self.path_of_one, self.word)
        return thing

    def contents_request(
        self, own_id: str, page: int, page_size: int, path: str | None = None
    ) -> Request:
        """Return the request for a page of what is in one of them, 1 to 1000 a page (observed)."""
        path = (path or self.path_of_one).replace("{id}", piece(own_id))
        return page_request(path, page, page_size, MOST_ROWS)

    def read_contents(
        self, answer: Answer, page: int, page_size: int, rows: str, path: str | None = None
    ) -> Page[dict[str, object]]:
        """Return a page of what is in one of them, which stands under the name *rows*.

        Raises `Misconfigured` where the service answers the thing itself, as the older reference says:
        there is no call for what is in it then.
        """
        path = path or self.path_of_one
        try:
            return read_page(answer, path, page, page_size, rows=rows, what=self.word)
        except Unavailable:
            told = folded(answer.members())
            if not answer.is_success or rows in told or not told.get("id"):
                raise
        why = f"{VENDOR} answers {path} with the {self.word}, not with its {self.contents}"
        raise lacking(Misconfigured(why, status=answer.status), "them")

    def delete_request(self, own_id: str) -> Request:
        """Return the request that deletes one of them; both forms send the same."""
        return Request("DELETE", f"{self.path}/{piece(own_id)}")

    def read_deleted(self, answer: Answer) -> None:
        """Return when *answer* says that the thing is deleted, or raise the `CallFailed` it means."""
        read_done(answer, self.path_of_one, self.word)
