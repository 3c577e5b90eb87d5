"""Files and folders by URI: local paths, `gs://` objects, and `pkg://` files of installed packages."""

from tidemill.storage.files import (
    FileInfo,
    copy_file,
    create_text,
    download_file,
    exists,
    json_text,
    list_files,
    list_folders,
    open_file,
    read_json,
    read_text,
    write_json,
    write_text,
    writing,
)
from tidemill.storage.folders import (
    MANIFEST,
    download_folder,
    publish_folder,
    refuse_file,
    remove_folder,
    upload_folder,
)
from tidemill.storage.uris import join, local_path, name_of

__all__ = [
    "MANIFEST",
    "FileInfo",
    "copy_file",
    "create_text",
    "download_file",
    "download_folder",
    "exists",
    "join",
    "json_text",
    "list_files",
    "list_folders",
    "local_path",
    "name_of",
    "open_file",
    "publish_folder",
    "read_json",
    "read_text",
    "refuse_file",
    "remove_folder",
    "upload_folder",
    "write_json",
    "write_text",
    "writing",
]
